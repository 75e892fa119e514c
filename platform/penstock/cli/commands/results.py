"""`results` of batches and of jobs: the lines, to files or standard output, and the exit status they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.commands.one_batch import Id, exit_as
from penstock.cli.own_files import keep_apart
from penstock.cli.patient_client import PatientClient
from penstock.cli.printing import remark
from penstock.cli.results import follow, pieces, split, write
from penstock.cli.watch import ENDED, path
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    import httpx


def results(
    id: Id,
    output: Annotated[Path | None, typer.Option(help="Where the answers go; standard output unless told.")] = None,
    errors: Annotated[Path | None, typer.Option(help="Where the failed lines go; nowhere unless told.")] = None,
    merged: Annotated[
        bool,
        typer.Option(
            "--merged",
            help="Answers and failed lines together, in the order of the input; of a retry, all lines of its parents "
            "too. With --errors they stay apart.",
        ),
    ] = False,
    live: Annotated[
        bool, typer.Option("--follow", help="Of a batch: all lines, as they come, to its end; exits as watch does.")
    ] = False,
    fail_on_errors: Annotated[
        bool, typer.Option("--fail-on-errors", help="With --follow: exit with 3 if lines failed, however few.")
    ] = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Fetch the output lines, and with --errors the failed ones too."""
    with told(), connected(url, data) as client:
        if output and errors:
            keep_apart([output, errors], [])
        if live:
            if merged or errors or id.startswith("job_"):
                raise Problem("--follow is for batches, and writes all lines, failed ones too, to one place.")
            patient = PatientClient(client)
            write(follow(patient, id), output)
            exit_as(patient.json(path(id)), fail_on_errors, on_stderr=True)
            return
        one = ask(client, "GET", path(id))
        if one["status"] not in ENDED:
            raise Problem(f"{id} is {one['status']}: it has no results yet.")
        if merged and errors is None:
            from penstock.cli.merged import merged as all_lines

            write(all_lines(client, one), output)
            return
        good, bad = _merged(client, one) if merged else _own(client, one)
        write(good, output)
        if errors:
            write(bad, errors)
        elif one["request_counts"]["failed"]:
            remark(f"{one['request_counts']['failed']:,} lines failed: fetch them with --errors FILE")


def _own(client: httpx.Client, one: dict[str, Any]) -> Any:
    if one.get("results") is not None:
        return split(one)
    return pieces(client, one["output_file_id"]), pieces(client, one["error_file_id"])


def _merged(client: httpx.Client, one: dict[str, Any]) -> Any:
    if one["parent_batch_id"] is None:
        return _own(client, one)
    good, bad = one["merged_output_file_id"], one["merged_error_file_id"]
    if good is None and bad is None:
        raise Problem(f"{one['id']} has no merged results: it ended before it was validated.")
    return pieces(client, good), pieces(client, bad)
