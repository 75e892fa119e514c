"""Submission: a plan's requests go to the place as batches, a file at a time, and a later call goes on behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from penstock.cli.client import ask
from penstock.cli.own_files import part_of
from penstock.cli.places.following import submit
from penstock.cli.places.place import OpenPlace
from penstock.cli.places.sidecar import Part, Sidecar
from penstock.cli.table_map.plan import MapPlan
from penstock.cli.tables.row_requests import ENDPOINT, cut
from penstock.stack.problem import Problem


def submit_all(
    plan: MapPlan, place: OpenPlace, sidecar: Sidecar, terms: dict[str, str], say: Callable[[str], None]
) -> None:
    """Make all batches of a plan, as far as they are not there; each step is in the sidecar at once. Raises Problem.

    terms: fields of each create. The sidecar's `more` says with which row the next part begins (`next_row`), and
    whether there is none (`cut`); nothing is in it before a file is uploaded.
    """
    # One row that can't be asked, too long for a line perhaps, fails alone.
    terms = terms | {"on_invalid": "skip"}
    for part in sidecar.parts:
        submit(place, sidecar, part, _lost, terms)
    if sidecar.more.get("cut"):
        return
    file = part_of(plan.options.out, "requests")
    requests = plan.requests(_model(place))
    for piece in cut(requests.starting(sidecar.more.get("next_row", 0)), file, plan.options.batch_lines):
        part = Part(ENDPOINT, piece.lines)
        sidecar.parts.append(part)
        sidecar.more["next_row"] = piece.end_row
        submit(place, sidecar, part, lambda: file, terms)
        sent = sum(one.lines for one in sidecar.parts)
        say(f"sent {sent:,} of {plan.choice.count:,} rows: {part.batch}")
        place.tend()
    if plan.choice.count and not sidecar.parts:
        first = next(requests.starting(0))
        raise Problem(f"No row makes a prompt; the first: {first.fault}.")
    sidecar.more["cut"] = True
    sidecar.save()


def _lost() -> Path:
    raise AssertionError("a part is in the sidecar once its file is there")


def _model(place: OpenPlace) -> str:
    """The model that is asked; raise Problem if the place has no such model, or has several and none was named."""
    names = [str(one["id"]) for one in ask(place.client, "GET", "/models")["data"]]
    if place.model is None and len(names) == 1:
        return names[0]
    there = ", ".join(names) or "none"
    if place.model is None:
        raise Problem(f"Say --model: {place.words} has {there}.")
    if place.model not in names:
        raise Problem(f"{place.words} has no model {place.model!r}: it has {there}.")
    return place.model
