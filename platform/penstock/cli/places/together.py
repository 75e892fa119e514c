"""Together: several batches as progress shows them, as if they were one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.cli.watch import ENDED

State = dict[str, Any]


def together(states: Sequence[State]) -> State:
    """Counts and tokens in sum, the state of the one that is least far; one alone as it is."""
    if len(states) == 1:
        return states[0]
    slowest = next((one for one in states if one["status"] not in ENDED), states[-1])
    return {
        "id": f"{len(states)} batches",
        "status": slowest["status"],
        "request_counts": _summed(states, "request_counts", ("total", "completed", "failed")),
        "usage": _summed(states, "usage", ("input_tokens", "output_tokens")),
        "waiting": slowest.get("waiting"),
        "paused": slowest.get("paused"),
        "expected": None,  # one batch's outlook says nothing about all
    }


def _summed(states: Sequence[State], what: str, names: Sequence[str]) -> dict[str, int]:
    return {name: sum(state[what][name] for state in states) for name in names}
