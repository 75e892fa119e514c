"""Words about workers, models and pools as the API has them: why a pool switched, how old a beat is."""

from __future__ import annotations

from typing import Any, Final

from penstock.console import words
from penstock.domain.models.version import label, number_of

_FRESH_SECONDS: Final = 10.0
_WHY: Final = {
    "free_place": "a place was free",
    "idle": "{leaves} had no work left",
    "quantum": "{leaves}'s turn was over, and {comes} was worth more",
    "bound": "work for {comes} had waited as long as its lane may",
    "deadline": "work for {comes} would have been late, and could still be in time",
    "call": "a waiting call asked for {comes}",
    "pinned": "an operator wanted {comes} awake",
}


def version_name(queue: str) -> str:
    """The version whose queue this is: a plain name is the first one's."""
    return queue if number_of(queue.rpartition("@")[2]) else f"{queue}@{label(1)}"


def model_name(queue: str) -> str:
    """The model whose version or queue this is."""
    model, at, version = queue.rpartition("@")
    return model if at and number_of(version) else queue


def ago(seconds: float | None) -> str:
    """How long ago somebody was heard of; what is as usual is not counted out."""
    if seconds is None:
        return "–"
    return "just now" if seconds < _FRESH_SECONDS else f"{words.duration(seconds)} ago"


def hours(value: float | None) -> str:
    """Hours as a duration."""
    return "–" if value is None else words.duration(3_600 * value)


def switched(decision: dict[str, Any]) -> str:
    """`chat@v1 → sql@v1`: who left and who came."""
    ends = (decision["leaves"], decision["comes"])
    return " → ".join(version_name(one) if one else "nobody" for one in ends)


def why_switched(decision: dict[str, Any]) -> str:
    """Why a pool decided so, in a sentence."""
    names = {end: version_name(decision[end]) if decision[end] else "nobody" for end in ("leaves", "comes")}
    told = _WHY.get(decision["why"])
    return f"{told[:1].upper()}{told[1:]}.".format(**names) if told else str(decision["why"])


def unkept(one: dict[str, Any]) -> str:
    """A bound that could not be kept, in a sentence."""
    what = {"call": "a waiting call", "deadline": "its deadline"}.get(one["lane"], f"lane {one['lane']}")
    bound, expected = words.duration(one["bound_seconds"]), words.duration(one["expected_seconds"])
    return f"{version_name(one['version'])}: {what} allows {bound}; its turn was likely after {expected}."
