"""`penstock`: one command, composed of families that each have a file of their own, imported when it is asked for.

What a family imports (SQLAlchemy, the API, an HTTP client) takes longer than most commands, so `--help`, completion and
each process of the platform pay only for their own.
"""

from __future__ import annotations

import difflib
import re
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from penstock.cli.examples import EXAMPLES
from penstock.cli.outlet import writable

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "up": ("up", "Start the whole platform on this machine and stay until Ctrl-C."),
    "run": ("run", "Answer a file of requests; takes the command lines of `vllm run-batch`."),
    "demo": ("demo", "Start the platform, send a batch of chat requests, check and show what comes back, stop."),
    "map": ("map", "Ask a model about each row of a table; the answers are new columns of it."),
    "doctor": (
        "doctor",
        "Look at this machine and the servers of its settings; say in a line each what is wrong, and what mends it.",
    ),
    "migrate": (
        "servers",
        "Bring the database to the newest revision, and every webhook secret under the first of the secret keys.",
    ),
    "api": ("servers", "Serve the HTTP API in this process."),
    "keeper": ("servers", "Run the keeper: dispatch, reap, expire, finish. Several may run."),
    "io": ("servers", "Run an io worker: validate and assemble."),
    "worker": ("servers", "Run a GPU worker and its engine, or a host of a pool."),
    "tune": (
        "tune",
        "Look for the engine's arguments with which a model is fastest on this machine, and say how to start it so.",
    ),
    "settings": ("settings", "Show every setting and its present value."),
    "usage": ("usage", "Show tokens, GPU-seconds and cost by day (UTC) and model, kind of work, lane or API key."),
    "audit": (
        "audit",
        "List who did what to keys, tenants, webhooks, batches and files, newest first (needs the database).",
    ),
    "batches": ("batches", "Submit JSONL files, watch them, fetch their results."),
    "jobs": ("jobs", "Submit one request or a few, watch them, fetch their answers."),
    "evals": ("evals", "Score answers of models and batches, and compare two runs line by line."),
    "files": ("files", "Upload, list, download and delete files."),
    "validate": ("validate", "Check a batch's file as the server does, without one: every bad line with its reason."),
    "keys": ("keys", "Make, list, rotate and revoke API keys (needs the database)."),
    "limits": ("limits", "Set what tenants and keys may do (needs the database); show what is left."),
    "models": ("models", "List and show models, make one known, roll versions out, promise latencies, set prices."),
    "ensembles": (
        "ensembles",
        "Ensembles, models that are made of several: add, look, try where requests go (needs an operator's key).",
    ),
    "pools": (
        "pools",
        "Pools of machines that serve more versions than fit at once: make them, ask why they switch "
        "(needs an operator's key).",
    ),
    "secrets": ("secrets", "The keys that webhook secrets are encrypted with."),
    "tenants": (
        "tenants",
        "List tenants, weigh them, keep their answers, say how long, erase them (needs the database).",
    ),
    "webhooks": ("webhooks", "Webhook endpoints, and the deliveries to them."),
    "workers": ("workers", "List workers, drain them, restart their engines (needs an operator's key)."),
}
"""By name: its file in `commands`, and what it does, which is the first paragraph of its own help too."""


class _OnDemand(TyperGroup):
    """A group whose commands are known by name and help until one of them is asked for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is asked for, imported now."""
        name, known, rest = super().resolve_command(ctx, args)
        if name is None:
            return name, known, rest
        found = load(name)
        if ctx.resilient_parsing:
            for one in (found, *getattr(found, "commands", {}).values()):
                _leave_unread(one, ctx)
        return name, found, rest

    def main(self, *args: Any, **how: Any) -> Any:
        """Read a command line and do it, whatever standard output is."""
        with writable():
            return super().main(*args, **how)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What was typed; to complete it no value is read."""
        if ctx.resilient_parsing:
            _leave_unread(self, ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run it; a value that is none of those that it may be is told with the nearest of them."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _nearest(error.message.removeprefix("Value error, "))
            raise


def _leave_unread(command: Any, ctx: Any) -> None:
    """Take values as they are: typer reads them with pydantic, whose import is half of the time that completion has."""
    for param in command.get_params(ctx):
        param.process_value = lambda ctx, value: value


_CHOICES: Final = re.compile(r"'(?P<given>.*)' is not one of (?P<choices>'.*')\.")


def _nearest(message: str) -> str:
    found = _CHOICES.fullmatch(message)
    like = found and difflib.get_close_matches(found["given"], re.findall("'([^']*)'", found["choices"]), 1)
    return f"{message} Did you mean {like[0]!r}?" if like else message


def load(name: str) -> Any:
    """Import a command; a family is the `app` of its file, a single one the function of its name."""
    found = import_module(f"penstock.cli.commands.{COMMANDS[name][0]}")
    family = getattr(found, "app", None)
    if family is None:
        alone = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False, rich_markup_mode=None)
        how = getattr(found, "CLASSES", {}).get(name), getattr(found, "CONTEXT", {}).get(name)
        alone.command(name, cls=how[0], context_settings=how[1])(getattr(found, name))
        command = typer.main.get_command(alone)
        _dress(name, command)
        return command
    family.rich_markup_mode = None  # one plain style, which costs half of the time
    group = typer.main.get_group(family)
    for own, command in group.commands.items():
        _dress(f"{name} {own}", command)
    return group


def _dress(name: str, command: Any) -> None:
    """Give a command its examples, and its list an uncut line of it."""
    command.short_help = " ".join((command.help or "").partition("\n\n")[0].split())
    if name in EXAMPLES and not command.epilog:
        command.epilog = "Examples:\n\n\b\n" + "\n".join(f"  {line}" for line in EXAMPLES[name])


app = typer.Typer(
    name="penstock",
    cls=_OnDemand,
    help="A queue-based batch inference platform for LLMs.",
    epilog="`penstock COMMAND --help` says more, with examples; docs/cli.md has it all on one page.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"penstock {metadata.version('penstock')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for _name, (_file, _help) in COMMANDS.items():
    app.command(_name, help=_help, short_help=_help)(lambda: None)

if __name__ == "__main__":
    app()
