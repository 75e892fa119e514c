"""`penstock tune`: the worker's process that looks for the arguments with which a model is fastest here."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli import engine_option
from penstock.cli.client import DEFAULT_DATA
from penstock.cli.printing import Json
from penstock.stack.problem import Problem

_GRID = re.compile(r"-{0,2}[a-z][a-z0-9_-]*=[^,=]+(,[^,=]+)*", re.ASCII)


def _check(values: list[str] | None) -> list[str] | None:
    for value in values or ():
        if not _GRID.fullmatch(value):
            raise typer.BadParameter(f"{value!r} is not like max-num-seqs=64,128.")
    return values


def tune(
    model: Annotated[
        str,
        typer.Argument(
            help="The model, and the name that workers will serve it under.",
            metavar="[NAME=]FOLDER_OR_HUGGING_FACE_ID|[NAME=]FILE.gguf",
        ),
    ],
    engine: engine_option.Engine = engine_option.DEFAULT,
    engine_arg: Annotated[
        list[str] | None, typer.Option(help="Where the search begins: an argument of the engine; repeatable.")
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="What to try instead of the usual: an argument of the engine and values of it, `own` for none;"
            " repeatable.",
            metavar="ARGUMENT=VALUE,VALUE",
            callback=_check,
        ),
    ] = None,
    lines: Annotated[
        int | None,
        typer.Option(
            help="Lines in a round; unless told, twice what the largest point has at once.", min=8, max=100_000
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(help="After this long what runs is ended.", min=0.1, max=10_080)] = 60.0,
    output: Annotated[Path | None, typer.Option(help="The file of results; tuning-MODEL.json unless told.")] = None,
    as_json: Json = False,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            envvar="PENSTOCK_DATA",
            help="The folder of `penstock up`, whose database keeps the results, unless PENSTOCK_DATABASE_URL is set.",
        ),
    ] = DEFAULT_DATA,
) -> None:
    """Look for the engine's arguments with which a model is fastest on this machine, and say how to start it so.

    Starts the engine again and again, on a machine that has nothing else to do: a start and two rounds of lines for
    each point, one argument after the other; then the best and what was given in turns, until it is clear which is
    faster.
    Works without a platform; with one, estimates know how fast the model is before it has answered anything.
    """
    from penstock.cli.database import database_url

    with suppress(Problem):  # without a database it says that it could not keep them
        os.environ["PENSTOCK_DATABASE_URL"] = database_url(data)
    told = ["--model", model, "--engine", engine, f"--minutes={minutes}"]
    told += [f"--engine-arg={one}" for one in engine_arg or ()] + [f"--grid={one}" for one in grid or ()]
    told += [f"--lines={lines}"] * (lines is not None) + [f"--output={output}"] * (output is not None)
    told += ["--json"] * as_json
    sys.stdout.flush()
    # The platform never imports the worker's package: this process becomes it.
    os.execv(sys.executable, [sys.executable, "-m", "penstock_worker", "tune", *told])
