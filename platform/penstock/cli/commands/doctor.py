"""`penstock doctor`: what is wrong with this machine and its servers, each in a line with its mend."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from penstock.cli.client import told
from penstock.cli.printing import Json, console, say_json

if TYPE_CHECKING:
    from penstock.doctor.finding import Finding
    from penstock.doctor.surroundings import Surroundings
    from penstock.settings import Settings

_DATA: Final = Path("data/up")


def doctor(
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="PENSTOCK_DATA",
            help="A data folder of `penstock up`. Unless told: what PENSTOCK_DATABASE_URL and the other settings name, "
            "else data/up.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="The API's port on this machine.", min=1, max=65_535)] = 8000,
    apis: Annotated[int, typer.Option(help="API processes that share the database.", min=0)] = 1,
    as_json: Json = False,
) -> None:
    """Look at this machine and the servers of its settings; say in a line each what is wrong, and what mends it.

    Changes nothing, but that it writes and deletes one blob. Exits with 1 if something is found that stops work.
    """
    # Here, since --help needs none of it.
    from penstock.doctor import all_looks
    from penstock.doctor.examination import examine
    from penstock.doctor.finding import FindingVerdict, warning
    from penstock.doctor.surroundings import read_settings

    with told():
        settings, slips = read_settings()
        around = _surroundings(settings, data, port, apis)
        found = [warning("settings", slip, "Rename or remove it.") for slip in slips] + examine(all_looks.of(around))
        good = not any(one.verdict is FindingVerdict.FAILED for one in found)
        if as_json:
            say_json({"ok": good, "checks": [dataclasses.asdict(one) for one in found]})
        else:
            _show(found)
    if not good:
        raise typer.Exit(1)


def _surroundings(settings: Settings, data: Path | None, port: int, apis: int) -> Surroundings:
    from penstock.doctor.surroundings import of_environment, of_folder

    if data is None and ("PENSTOCK_DATABASE_URL" in os.environ or not (_DATA / "postgres").is_dir()):
        return of_environment(settings, port=port, apis=apis)
    return of_folder(settings, data or _DATA, os.environ, port=port)


def _show(found: list[Finding]) -> None:
    out = console()
    width = max(len(one.name) for one in found)
    for one in found:
        mend = f". {one.mend}" if one.mend else ""
        out.print(f"{one.verdict:<8} {one.name:<{width}}  {one.said}{mend}", soft_wrap=True)
    counts = Counter(one.verdict for one in found)
    out.print(", ".join(f"{counts[verdict]} {verdict}" for verdict in counts))
