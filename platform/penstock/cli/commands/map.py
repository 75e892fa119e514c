"""`penstock map`: a prompt for each row of a table, and the answers as new columns of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli import engine_option, printing
from penstock.cli.exit_status import FAILED_LINES, INTERRUPTED
from penstock.cli.places.options import Data, EngineArg, EngineUrl, LaneName, Model, PlaceOptions, Server
from penstock.cli.tables.table_format import TableFormat
from penstock.domain.work.lane import Lane

if TYPE_CHECKING:
    from penstock.cli.table_map.plan import MapOptions


def map(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="CSV, TSV, JSONL or Parquet, by its extension; - is standard input.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="The table to write, by its extension.")],
    prompt: Annotated[str | None, typer.Option(help="A Jinja template: {{ column }}, or {{ row['a name'] }}.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="The same, from a file.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told first; a template too.")] = None,
    schema: Annotated[
        str | None, typer.Option(help="What answers must be: a JSON schema file, or a pydantic class: file.py:Class.")
    ] = None,
    column: Annotated[str, typer.Option(help="The name of the new column, where no schema names several.")] = "answer",
    prefix: Annotated[str, typer.Option(help="Goes before the names of all new columns.")] = "",
    limit: Annotated[int | None, typer.Option(help="Only the first so many rows.", min=1)] = None,
    sample: Annotated[int | None, typer.Option(help="Only so many rows, spread over the table.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Another sample for another number.")] = 0,
    max_tokens: Annotated[int | None, typer.Option(help="The most tokens of one answer.", min=1)] = None,
    temperature: Annotated[float | None, typer.Option(help="0: the likeliest answer each time.", min=0)] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="NAME=JSON in each request: top_p=0.9.")] = None,
    format: Annotated[TableFormat | None, typer.Option(help="What TABLE is, whatever its extension.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Of a CSV; else what its header shows: , ; | or tab.")] = None,
    batch_lines: Annotated[int, typer.Option(help="The most rows of one batch.", min=1, max=1_000_000)] = 100_000,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Ask the rows once more that have no answer at all, and write OUT anew."),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, and replace an OUT that is there.")] = False,
    model: Model = None,
    engine: engine_option.Engine = engine_option.DEFAULT,
    engine_arg: EngineArg = None,
    server: Server = None,
    engine_url: EngineUrl = None,
    lane: LaneName = Lane.STANDARD,
    window: Annotated[str, typer.Option(help="When it must be done: <n>m, <n>h or <n>d.")] = "30d",
    data: Data = None,
) -> None:
    """Ask a model about each row of a table; the answers are new columns of it.

    Every column is kept, and so is the order. A row that failed has null, and its reason in the column `error`.
    Killed or interrupted: the same command again goes on. Exits with 0 if every row was answered, 3 if some failed,
    1 if it could not be done, 130 if it was interrupted.
    """
    # Here, since the group imports this file for its help: Jinja and the rest take a while.
    from penstock.cli.client import told
    from penstock.cli.commands.up import stopping_on_signals
    from penstock.cli.own_files import keep_apart, target
    from penstock.cli.table_map.plan import MapOptions

    place = PlaceOptions(model, engine, tuple(engine_arg or ()), server, engine_url, data)

    def interrupted(words: str) -> None:
        say(f"{words}: the same command goes on" + ("; meanwhile its batches run" if server else ""))
        sys.exit(INTERRUPTED)

    with told(), stopping_on_signals(interrupted):
        keep_apart([out], [prompt_file] if prompt_file else [])
        text, option = _prompt(prompt, prompt_file)
        options = MapOptions(
            table=table, out=target(out), prompt=text, prompt_option=option, system=system, schema=schema,
            format=format, delimiter=_delimiter(delimiter), column=column, prefix=prefix, limit=limit, sample=sample,
            seed=seed, max_tokens=max_tokens, temperature=temperature, more=_fields(changes or []),
            batch_lines=batch_lines,
        )  # fmt: skip
        failed = _mapped(options, place, {"lane": str(lane), "completion_window": window}, fresh, retry_failed)
    if failed:
        raise typer.Exit(FAILED_LINES)


def _mapped(
    options: MapOptions, place_options: PlaceOptions, terms: dict[str, str], fresh: bool, retry_failed: bool
) -> int:
    """Do it all; how many rows failed."""
    from penstock.cli.places.following import cancel_left_behind, retry_all_failed
    from penstock.cli.places.place import opened
    from penstock.cli.places.sidecar import growing, reopened
    from penstock.cli.printing import console
    from penstock.cli.table_map.joining import write_empty, write_joined
    from penstock.cli.table_map.plan import planned
    from penstock.cli.table_map.progress import follow_all, summary
    from penstock.cli.table_map.submission import submit_all

    place_options.check()
    # OUT.part is the lock, too: two commands never write one OUT.
    with growing(options.out), planned(options) as plan:
        sidecar = reopened(options.out, place_options.identity() | plan.identity(), fresh=fresh)
        if sidecar.ended and options.out.exists() and not (retry_failed and sidecar.more["failed"]):
            say(f"{options.out} is written already; --fresh asks again")
            return int(sidecar.more["failed"])
        if not plan.choice.count:
            sidecar.save()  # what is written now is its own
            write_empty(plan)
            sidecar.ended, sidecar.more["failed"] = True, 0
            sidecar.save()
            say(f"{options.table} has no rows: {options.out} has none")
            return 0
        with opened(place_options, say) as place:
            cancel_left_behind(place, sidecar)
            submit_all(plan, place, sidecar, terms, say)
            states = follow_all(place, sidecar, console(stderr=True, live=True))
            if retry_failed and retry_all_failed(place, sidecar, states):
                states = follow_all(place, sidecar, console(stderr=True, live=True))
            counts = write_joined(plan, place, sidecar, states)
        sidecar.ended, sidecar.more["failed"] = True, counts.failed
        sidecar.more.pop("retrying", None)
        sidecar.save()
    say(f"wrote {options.out}: {summary(counts.rows, counts.failed, plan.new.columns[-1].name, states)}")
    return counts.failed


def _prompt(prompt: str | None, file: Path | None) -> tuple[str, str]:
    """The template, and the flag that it came by."""
    from penstock.cli.tables.text_file import whole_text

    if (prompt is None) == (file is None):
        raise typer.BadParameter("say --prompt or --prompt-file.")
    return (prompt, "--prompt") if prompt is not None else (whole_text(file or Path()), "--prompt-file")


def _delimiter(text: str | None) -> str | None:
    one = {"tab": "\t", "\\t": "\t"}.get(text or "", text)
    if one is not None and (len(one) != 1 or one in '"\r\n'):
        raise typer.BadParameter("--delimiter is one character, or tab.")
    return one


def _fields(texts: list[str]) -> tuple[tuple[str, Any], ...]:
    """What --set puts into each request."""
    from penstock.cli.commands.one_batch import values

    fields = values(texts)
    for name in ("model", "messages", "stream"):
        if name in fields:
            raise typer.BadParameter(f"--set can't change {name!r}.")
    return tuple(sorted(fields.items()))


def say(words: str) -> None:
    """Say what is being done."""
    printing.remark(f"[map] {words}")
