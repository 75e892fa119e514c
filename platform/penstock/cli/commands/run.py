"""`penstock run`: a file of requests in, a file of answers out, as `vllm run-batch` does it; and it can be killed.

OUT.part grows while it runs, OUT.penstock.json says what was sent where, and OUT is there once all of it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from penstock.cli import engine_option
from penstock.cli.client import told
from penstock.cli.commands.up import stopping_on_signals
from penstock.cli.exit_status import FAILED_LINES, INTERRUPTED
from penstock.cli.places import options
from penstock.cli.printing import console, remark
from penstock.cli.runs.command_line import META, RunBatchCommand, SplitLine
from penstock.domain.work.lane import Lane
from penstock.domain.work.terms import OnInvalid

if TYPE_CHECKING:
    from penstock.cli.runs.run import Run

CLASSES: Final = {"run": RunBatchCommand}
"""Of which class these commands are, where it is no ordinary one."""


def run(
    context: typer.Context,
    input_file: Annotated[
        Path, typer.Option("-i", "--input-file", metavar="IN", help="JSONL, one request a line; gzip, too.")
    ],
    output_file: Annotated[
        Path, typer.Option("-o", "--output-file", metavar="OUT", help="Where the answers go, in the order of IN.")
    ],
    model: options.Model = None,
    errors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where failed lines go; without, they stand in OUT, in their place."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask the lines that failed once more, and write OUT anew.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over, whatever is there of OUT; it is replaced at the end.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take in tokens, time and money; ask and write nothing.")
    ] = False,
    on_invalid: Annotated[
        OnInvalid, typer.Option(help="A line that can't be asked ends it before any is asked, or counts as failed.")
    ] = OnInvalid.FAIL,
    window: Annotated[str, typer.Option(help="When it must be done: <n>m, <n>h or <n>d.")] = "30d",
    lane: options.LaneName = Lane.STANDARD,
    engine: engine_option.Engine = engine_option.DEFAULT,
    engine_arg: options.EngineArg = None,
    server: options.Server = None,
    engine_url: options.EngineUrl = None,
    data: options.Data = None,
) -> None:
    """Answer a file of requests; takes the command lines of `vllm run-batch`.

    What is no flag of its own goes to the engine: `--max-num-seqs 256 --dtype float32`.

    \b
    penstock run -i in.jsonl -o out.jsonl --model Qwen/Qwen3-0.6B
    penstock run -i in.jsonl -o out.jsonl --model qwen=/models/qwen --errors failed.jsonl
    penstock run -i in.jsonl -o out.jsonl --server http://penstock:8000
    penstock run -i in.jsonl -o out.jsonl --engine-url http://127.0.0.1:8001
    penstock run -i in.jsonl -o out.jsonl --model tiny --dry-run

    While it runs OUT.part has the lines that are answered so far. Killed or interrupted: the same command
    again goes on, and asks what is missing. Exits with 0 if every line was answered, 3 if some failed, 1 if it
    could not be done, 130 if it was interrupted.
    """
    line: SplitLine = context.meta[META]
    with told():
        from penstock.cli.runs.run import Run

        where = _place(line, model, engine, engine_arg, server, engine_url, data)
        one = Run(
            file=input_file, out=output_file, errors=errors, place=where, lane=str(lane), window=window,
            on_invalid=str(on_invalid), say=say, console=console(stderr=True, live=True),
        )  # fmt: skip
        with stopping_on_signals(_interrupted(one)):
            if dry_run:
                _print_estimates(one)
                return
            if one.go(fresh=fresh, retry_failed=retry_failed).failed:
                raise typer.Exit(FAILED_LINES)


def _place(
    line: SplitLine, model: str | None, engine: str, engine_arg: list[str] | None, server: str | None,
    engine_url: str | None, data: Path | None,
) -> options.PlaceOptions:  # fmt: skip
    """Where it is asked; what of the command line means nothing there is said."""
    words, runs_already = list(line.engine), bool(server or engine_url)
    over = list(line.passed_over)
    if model and model != "tiny" and line.served_names and not runs_already and "=" not in model:
        # Lines may name it, as they do with vLLM.
        model = f"{line.served_names[0]}={model}"
        say(f"the model is called {line.served_names[0]}, as --served-model-name says")
        over = [one for one in over if one != "--served-model-name"]
    if runs_already:
        over += [word.partition("=")[0] for word in words if word.startswith("-")]
        words = []
    if over:
        say(f"passed over, without a meaning here: {', '.join(dict.fromkeys(over))}")
    return options.PlaceOptions(
        model=model, engine=engine, engine_args=(*(engine_arg or ()), *words), server=server, engine_url=engine_url,
        data=data,
    )  # fmt: skip


def _print_estimates(one: Run) -> None:
    from penstock.cli.commands.estimate import print_estimate

    out = console()
    for part, found in one.estimates():
        out.print(f"{part.endpoint}, {part.lines:,} lines")
        print_estimate(found, out)


def _interrupted(one: Run) -> Callable[[str], None]:
    def stop(words: str) -> None:
        say(f"{words}; {one.how_to_go_on()}")
        sys.exit(INTERRUPTED)

    return stop


def say(words: str) -> None:
    """Say what is being done."""
    remark(f"[run] {words}")
