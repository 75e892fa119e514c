"""docs/cli.md: what each command says of itself, on one page. `make docs` writes it, and a test holds it to be so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args

from penstock.cli.client import Data, Url
from penstock.cli.examples import EXAMPLES
from penstock.cli.main import COMMANDS, load
from penstock.cli.printing import Json

_HEAD: Final = """# The command line

This page is written by `make docs` from what the commands say of themselves; change those, not it.

`penstock COMMAND --help` says the same. `penstock --install-completion` teaches bash, zsh and fish to complete
commands and options; a new shell does. `penstock --version` says the version.

## What all have in common

**Where the API is, and with which key.** Commands that ask the API take `--url` (else `PENSTOCK_URL`, else
`http://127.0.0.1:8000`) and the key in `PENSTOCK_API_KEY`, else that in the folder of `penstock up` (`--data`, else
`PENSTOCK_DATA`, else `data/up`). A key is never an argument: others could read it in the list of processes. Commands
that need the database take it from `PENSTOCK_DATABASE_URL`, else from that folder.

**`--json`** prints one JSON document and nothing else on standard output: the API's object as it is, of lists an object
with `data`. Progress, remarks and errors are on standard error. With `--watch` it is one document a line.

**Whoever waits** (`--wait`, `watch`, `--watch`, `--follow`) goes on over a restart of the API, and waits where a rate
is used up or the server says to come later, for up to five minutes. Ctrl-C ends the command, not the batch.

**Results are bytes**: `results` and `files download` write them to standard output, or with `--output` to a file that
is there only once it is whole.

| exit status | when |
|---|---|
| 0 | it is done |
| 1 | it is refused, or can't be done; one line on standard error says why |
| 2 | the command line is wrong: a command, an option or a value that there is not |
| 3 | lines failed: of a batch without any answer, or with some failed and `--fail-on-errors`; bad lines in `validate` |
| 130 | Ctrl-C |
"""
_COMMON: Final = frozenset(get_args(one)[1].help for one in (Json, Url, Data))
"""What is said of options that the page's head explains."""


def commands() -> Iterator[tuple[str, Any]]:
    """Each command that does something, with its name as it is typed: `batches submit`, `up`."""
    for name in COMMANDS:
        command = load(name)
        own = getattr(command, "commands", None)
        if own is None:
            yield name, command
        else:
            yield from ((f"{name} {one}", found) for one, found in own.items())


def page() -> str:
    """docs/cli.md."""
    return _HEAD + "".join(_section(name, command) for name, command in commands())


def _section(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=f"penstock {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    shown = "".join(f"{line}\n" for line in EXAMPLES.get(name, ()))
    parts = [
        f"\n## penstock {name}\n\n",
        f"`penstock {name} {usage}`\n\n",
        "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n")) + "\n",
        f"\n```sh\n{shown}```\n" if shown else "",
        _options(command, context),
    ]
    return "".join(parts)


def _options(command: Any, context: Any) -> str:
    """Those of its own as a table; what the page's head says of all is only named."""
    params = [one for one in command.params if not _is_common(one)]
    records = filter(None, (one.get_help_record(context) for one in params))
    rows = "".join(f"| `{_cell(left)}` | {_cell(right).replace('<', '&lt;')} |\n" for left, right in records)
    common = ", ".join(f"`{one.opts[0]}`" for one in command.params if _is_common(one))
    return (f"\n| | |\n|---|---|\n{rows}" if rows else "") + (f"\nBeside these: {common}.\n" if common else "")


def _is_common(param: Any) -> bool:
    return getattr(param, "help", None) in _COMMON


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
