"""`penstock validate`: the server's checks of a batch's file, on this machine, without a server."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from penstock.cli.batch_page import fault
from penstock.cli.client import told
from penstock.cli.commands.one_batch import Model
from penstock.cli.exit_status import FAILED_LINES
from penstock.cli.input_file import first_url, inflated
from penstock.cli.printing import Json, remark, say, say_json
from penstock.domain.inference_endpoints import BATCHED, named
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    from penstock.service.planning.file_check import FileCheck

_PIECE_BYTES: Final = 1 << 20


def validate(
    file: Annotated[Path, typer.Argument(help="JSONL, one request a line; gzip too.")],
    endpoint: Annotated[str | None, typer.Option(help="What every line asks; else what the first says.")] = None,
    model: Model = None,
    most: Annotated[int, typer.Option(help="So many bad lines are listed; all are counted.", min=1)] = 1_000,
    as_json: Json = False,
) -> None:
    """Check a batch's file as the server does, without one: every bad line with its reason.

    Which models there are is the server's to know, and is not checked. Limits are those of this environment's
    PENSTOCK_MAX_… (docs/limits.md). Exits with 3 if lines are bad, with 1 if the file as a whole can't be a batch.
    """
    with told(), _inflated(file) as lines:
        url = _named(endpoint or first_url(file, skipping=True))
        found = _check(lines, url, model, most)
        if as_json:
            say_json(_document(file, url, found))
        else:
            _say(file, url, found)
    if found.errors:
        raise typer.Exit(1 if found.whole else FAILED_LINES)


def _named(endpoint: str) -> str:
    if (url := named(endpoint)) not in BATCHED:
        raise Problem(f"No batch asks {endpoint!r}: there are {', '.join(BATCHED)}.")
    return url


@contextmanager
def _inflated(file: Path) -> Iterator[Path]:
    """What the server would keep of it: gzip is inflated, into a folder that goes again."""
    with inflated(file) as lines:
        if not isinstance(lines, gzip.GzipFile):
            yield file
            return
        from penstock.settings import load

        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            copy = Path(folder) / "input"
            most = load().max_file_bytes
            with copy.open("wb") as into:
                while (piece := lines.read(_PIECE_BYTES)) and into.tell() <= most:
                    into.write(piece)  # no more than is seen to be too much: it may be a bomb
            yield copy


def _check(lines: Path, url: str, model: str | None, most: int) -> FileCheck:
    from penstock.service.planning import file_check
    from penstock.settings import load

    settings = load()
    if lines.stat().st_size > settings.max_file_bytes:
        raise Problem(f"The file is longer than {settings.max_file_bytes:,} bytes (PENSTOCK_MAX_FILE_BYTES).")
    return file_check.check(lines, url, model, most, settings)


def _document(file: Path, url: str, found: FileCheck) -> dict[str, Any]:
    """The errors are those of a failed batch's `errors`; null if there are none."""
    total = found.bad_lines or len(found.errors)
    errors = {"object": "list", "data": [asdict(one) for one in found.errors], "total": total}
    return {
        "object": "file.validation",
        "file": str(file),
        "endpoint": url,
        "models": found.models,
        "good_lines": found.good_lines,
        "errors": errors if total else None,
    }


def _say(file: Path, url: str, found: FileCheck) -> None:
    for error in found.errors:
        say(fault(asdict(error)))
    if not found.errors:
        say(f"{file}: {found.good_lines:,} lines are good, for {', '.join(found.models)} at {url}")
    elif not found.whole:
        more = f"; the first {len(found.errors):,} are listed" if found.bad_lines > len(found.errors) else ""
        remark(f"{file}: {found.bad_lines:,} lines are bad, {found.good_lines:,} are good{more}")
