"""`penstock evals`: answers are scored, and runs compared; over the HTTP API."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from penstock.cli.batch_page import local_time
from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.commands.one_batch import values
from penstock.cli.eval_page import ENDED, print_comparison, print_run, print_runs, progress
from penstock.cli.patient_client import PatientClient, newest
from penstock.cli.printing import Json, console, listed, remark, say, say_json, show, table
from penstock.domain.work.lane import Lane
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    import httpx

app = typer.Typer(no_args_is_help=True, help="Score answers of models and batches, and compare two runs line by line.")

_LOOK_SECONDS: Final = 0.5

EvalId = Annotated[str, typer.Argument(help="An eval's id.", metavar="EVAL_ID")]
RunId = Annotated[str, typer.Argument(help="A run's id.", metavar="RUN_ID")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; exit with 1 unless all complete.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="For people.")],
    lines: Annotated[
        str | None, typer.Option("--input", help="A batch's file, or a file's id: what runs of models ask.")
    ] = None,
    references: Annotated[
        str | None, typer.Option(help="JSONL with custom_id and expected, or a file's id; else in the input's lines.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Score 1 for what is expected, trimmed.")] = False,
    normalise: Annotated[
        list[str] | None, typer.Option(help="With --exact: trim, spaces, lower, punctuation; repeatable.")
    ] = None,
    extract: Annotated[str | None, typer.Option(help="With --exact: compare what this pattern finds.")] = None,
    regex: Annotated[list[str] | None, typer.Option(help="Score 1 where this pattern is found; repeatable.")] = None,
    schema: Annotated[Path | None, typer.Option(help="Score 1 for JSON that this JSON schema allows.")] = None,
    similar: Annotated[str | None, typer.Option(help="Score nearness, by this model's embeddings.")] = None,
    threshold: Annotated[float | None, typer.Option(help="With --similar: what has passed, 0.8 unless told.")] = None,
    scorers: Annotated[Path | None, typer.Option(help="A JSON file with scorers, as the API takes them.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="What the input's lines ask, if no chat.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Say what answers are measured by; prints the eval's id."""
    with told():
        chosen = _read_json(scorers, list) if scorers else []
        if exact or normalise or extract:
            more = {"normalise": normalise, "extract": extract}
            chosen.append({"name": "exact", "type": "exact"} | {name: value for name, value in more.items() if value})
        for number, pattern in enumerate(regex or (), 1):
            chosen.append({"name": "regex" if number == 1 else f"regex {number}", "type": "regex", "pattern": pattern})
        if schema:
            chosen.append({"name": "schema", "type": "json_schema", "schema": _read_json(schema, dict)})
        if similar:
            limit = {} if threshold is None else {"pass_threshold": threshold}
            chosen.append({"name": "similarity", "type": "similarity", "model": similar} | limit)
        if not chosen:
            raise Problem("Say how to score: --exact, --regex, --schema, --similar or --scorers FILE.")
        with connected(url, data) as client:
            asked = {
                "name": name,
                "scorers": chosen,
                "input_file_id": _file(client, lines, "batch"),
                "reference_file_id": _file(client, references, "evals"),
                "endpoint": endpoint,
            }
            made = ask(client, "POST", "/evals", json={name: value for name, value in asked.items() if value})
            say_json(made) if as_json else say(made["id"])


def _read_json(file: Path, kind: type) -> Any:
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise Problem(f"{file} can't be read: {error.strerror}.") from None
    except ValueError:
        raise Problem(f"{file} is no JSON.") from None
    if not isinstance(found, kind):
        raise Problem(f"{file} must hold a JSON {'list' if kind is list else 'object'}.")
    return found


def _file(client: httpx.Client, named: str | None, purpose: str) -> str | None:
    """The id of a file that is uploaded now, unless it is one already."""
    from penstock.cli.input_file import send

    if named is None or (named.startswith("file-") and not Path(named).exists()):
        return named
    return str(send(client, Path(named), purpose)["id"])


@app.command("list")
def list_(
    id: Annotated[str | None, typer.Argument(help="List the runs of this eval.", metavar="EVAL_ID")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 20,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List evals, or the runs of one, newest first."""
    with told(), connected(url, data) as client:
        page = newest(PatientClient(client), "/evals" if id is None else f"/evals/{id}/runs", limit)
        if as_json:
            say_json(page)
        elif id is None:
            show(table(("id", "name", "scorers", "runs", "created"), map(_eval_row, page["data"])))
        else:
            print_runs(page["data"], console())


def _eval_row(one: dict[str, Any]) -> tuple[str, ...]:
    names = ", ".join(scorer["name"] for scorer in one["scorers"])
    return one["id"], one["name"], names, f"{one['run_count']:,}", local_time(one["created_at"])


@app.command()
def run(
    id: EvalId,
    model: Annotated[list[str] | None, typer.Option(help="Ask this model, or version; repeatable.")] = None,
    batch: Annotated[list[str] | None, typer.Option(help="Score this batch that has ended; repeatable.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="NAME=JSON in each body, temperature=0.")] = None,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    lane: Annotated[Lane, typer.Option(help="How urgent it is.")] = Lane.STANDARD,
    window: Annotated[str, typer.Option(help="When it must be done: <n>m, <n>h or <n>d.")] = "24h",
    wait: Wait = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Score models, or batches that have ended; of two, with --wait, the second is compared with the first."""
    common = {"name": name, "lane": str(lane), "completion_window": window}
    with told(), connected(url, data) as client:
        asked: list[dict[str, Any]] = [
            common | {"model": one} | ({"set": values(changes)} if changes else {}) for one in model or ()
        ]
        asked += [common | {"batch_id": one} for one in batch or ()]
        if not asked:
            raise Problem("Say whose answers: --model NAME or --batch ID.")
        runs = [ask(client, "POST", f"/evals/{id}/runs", json=one) for one in asked]
        if not as_json:
            for one in runs:
                say(one["id"])
        if not wait:
            if as_json:
                say_json(listed(runs))
            return
        patient = PatientClient(client, known=True)
        runs = [_until_ended(patient, f"/evals/{id}/runs/{one['id']}", as_json) for one in runs]
        whole = all(one["status"] == "completed" for one in runs)
        if as_json:
            say_json(listed(runs))
        else:
            print_runs(runs, console())
            if whole and len(runs) == 2:
                print_comparison(_compared(client, patient, id, runs[0]["id"], runs[1]["id"]), console())
        if not whole:
            raise typer.Exit(1)


def _until_ended(patient: PatientClient, path: str, quiet: bool) -> dict[str, Any]:
    """A run or comparison once it has ended; on the way, each stage is said once."""
    before = ""
    while True:
        seen: dict[str, Any] = patient.json(path)
        if seen["status"] in ENDED:
            return seen
        if not quiet and seen["status"] != before:
            remark(f"{seen['id']} {progress(seen) if 'scored' in seen else seen['status']}")
            before = seen["status"]
        time.sleep(_LOOK_SECONDS)


@app.command()
def compare(
    id: EvalId,
    baseline: Annotated[str, typer.Argument(help="The run that is there.", metavar="BASELINE")],
    candidate: Annotated[str, typer.Argument(help="The run that may take its place.", metavar="CANDIDATE")],
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Compare two completed runs line by line: better, worse, or no difference shown."""
    with told(), connected(url, data) as client:
        one = _compared(client, PatientClient(client, known=True), id, baseline, candidate)
        say_json(one) if as_json else print_comparison(one, console())
        if one["status"] != "completed":
            raise typer.Exit(1)


def _compared(client: httpx.Client, patient: PatientClient, id: str, baseline: str, candidate: str) -> dict[str, Any]:
    pair = {"baseline_run_id": baseline, "candidate_run_id": candidate}
    made = ask(client, "POST", f"/evals/{id}/comparisons", json=pair)
    return _until_ended(patient, f"/evals/{id}/comparisons/{made['id']}", quiet=True)


@app.command("show")
def show_(
    id: EvalId,
    run_id: Annotated[str | None, typer.Argument(help="Show this run of it.", metavar="RUN_ID")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Show an eval with its runs, or one run with what each scorer found."""
    with told(), connected(url, data) as client:
        one = ask(client, "GET", f"/evals/{id}" + (f"/runs/{run_id}" if run_id else ""))
        if as_json:
            say_json(one)
        elif run_id:
            print_run(one, console())
        else:
            show(table(("id", "name", "scorers", "runs", "created"), [_eval_row(one)]))
            print_runs(newest(PatientClient(client), f"/evals/{id}/runs", 20)["data"], console())


@app.command()
def cancel(id: EvalId, run_id: RunId, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Cancel a run, and the batches that were made for it."""
    with told(), connected(url, data) as client:
        one = ask(client, "POST", f"/evals/{id}/runs/{run_id}/cancel")
        say_json(one) if as_json else say(f"{run_id} {one['status']}")


@app.command()
def delete(
    id: EvalId,
    run_id: Annotated[str | None, typer.Argument(help="Delete only this run.", metavar="RUN_ID")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Delete an eval with its runs and results, or one run; batches stay."""
    with told(), connected(url, data) as client:
        gone = ask(client, "DELETE", f"/evals/{id}" + (f"/runs/{run_id}" if run_id else ""))
        say_json(gone) if as_json else say(f"{run_id or id} deleted")
