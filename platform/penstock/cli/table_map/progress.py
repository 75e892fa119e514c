"""Progress: all batches of a map until each has ended, with speed, time left, and cost so far and in all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal

from rich.console import Console

from penstock.cli.patient_client import LOOK_AGAIN_SECONDS
from penstock.cli.places import together as batches
from penstock.cli.places.following import state_of
from penstock.cli.places.place import OpenPlace
from penstock.cli.places.sidecar import Sidecar
from penstock.cli.places.together import State
from penstock.cli.watch import ENDED, SeenPace, shown, why
from penstock.stack.problem import Problem


def follow_all(place: OpenPlace, sidecar: Sidecar, console: Console) -> list[State]:
    """The last state of each batch, in order; raise Problem if one was refused as a whole."""
    pace = SeenPace()
    last: list[State | None] = [None] * len(sidecar.parts)
    states: list[State] = []
    with shown(console) as show:
        while sidecar.parts:
            states = [
                before if before and before["status"] in ENDED else state_of(place, part)
                for part, before in zip(sidecar.parts, last, strict=True)
            ]
            last = [*states]
            all_ = together(states)
            pace.note(all_, time.monotonic())
            words = (why(all_) or pace.words(all_, time.time()), cost_words(all_))
            show(all_, " · ".join(word for word in words if word))
            if all(state["status"] in ENDED for state in states):
                break
            place.tend()
            time.sleep(LOOK_AGAIN_SECONDS)
    _refused(sidecar, states)
    return states


def _refused(sidecar: Sidecar, states: Sequence[State]) -> None:
    """Raise Problem if a batch failed as a whole; the same command makes it anew, or all, if none was asked."""
    failed = [(part, one) for part, one in zip(sidecar.parts, states, strict=True) if one["status"] == "failed"]
    if not failed:
        return
    for part, _ in failed:
        part.batch = None
    if len(failed) == len(states):
        sidecar.forget()
    else:
        sidecar.nonce += "x"  # of what failed the create is another one
        sidecar.save()
    state = failed[0][1]
    error = ((state["errors"] or {}).get("data") or [{"message": "no reason is given", "code": None}])[0]
    hint = " Say --fresh --batch-lines with fewer." if error["code"] == "too_many_tasks" else ""
    raise Problem(f"{state['id']} failed: {error['message']}{hint}")


def together(states: Sequence[State]) -> State:
    """Several batches as one, and what all have cost."""
    return batches.together(states) | {"cost": _cost(states)}


def _cost(states: Sequence[State]) -> tuple[Decimal, str] | None:
    """What all have cost, by tokens where those have a price, else by GPU-seconds; None if nothing has."""
    costs = [state["cost"] for state in states if state.get("cost")]
    for by in ("tokens", "gpu"):
        amount = sum((Decimal(cost[by]) for cost in costs), Decimal(0))
        if amount:
            return amount, costs[0]["currency"]
    return None


def cost_words(all_: State) -> str:
    """`0.0123 EUR so far, about 0.51 in all`; nothing if no price is known."""
    if all_["cost"] is None:
        return ""
    amount, currency = all_["cost"]
    counts = all_["request_counts"]
    done = counts["completed"] + counts["failed"]
    if not done or done == counts["total"]:
        return f"{amount:.4f} {currency}"
    return f"{amount:.4f} {currency} so far, about {amount * counts['total'] / done:.4f} in all"


def summary(rows: int, failed: int, column: str, states: Sequence[State]) -> str:
    """`500 rows, 497 answered, 3 failed (why: error); 12,345 tokens in, 4,567 out; 0.0123 EUR`."""
    words = [f"{rows:,} rows, {rows - failed:,} answered, {failed:,} failed" + (f" (why: {column})" if failed else "")]
    if states:
        all_ = together(states)
        words.append(f"{all_['usage']['input_tokens']:,} tokens in, {all_['usage']['output_tokens']:,} out")
        words.append(cost_words(all_))
    return "; ".join(word for word in words if word)
