"""Line forms: which failed lines are asked again and what is changed in them, as the API takes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.console.forms import SentForm
from penstock.domain.api_errors import BadRequest


@dataclass(frozen=True)
class LineChanges:
    """What is typed into the form, kept as it was typed."""

    max_tokens: str = ""
    temperature: str = ""
    model: str = ""

    def asked(self) -> dict[str, Any]:
        """As `/retry` takes it; raises BadRequest for what is no number."""
        changes: dict[str, Any] = {}
        if self.max_tokens:
            changes["max_tokens"] = _number(self.max_tokens, int, "Max tokens")
        if self.temperature:
            changes["temperature"] = _number(self.temperature, float, "Temperature")
        return ({"set": changes} if changes else {}) | ({"model": self.model} if self.model else {})


NO_CHANGES = LineChanges()


def changes_of(form: SentForm) -> LineChanges:
    """What was typed."""
    return LineChanges(form["max_tokens"], form["temperature"], form["model"])


def asked_lines(form: SentForm) -> Mapping[str, Any]:
    """Which lines the form chose: by `scope` all that failed, those of a group, or what is ticked.

    Raises BadRequest if nothing is.
    """
    scope = form["scope"]
    if scope == "all":
        return {"failed": True}
    if scope == "group":
        return {"groups": [form["of"]]}
    if groups := form.all("group"):
        return {"groups": groups}
    if ticked := form.all("line"):
        return {"failed": True, "custom_ids": [_custom_id(one) for one in ticked]}
    raise BadRequest("Nothing is chosen: tick what is to be asked again.", param="line")


def ticked_value(custom_id: str) -> str:
    """A custom_id as a field's value: a browser changes the ends of lines, and drops what it can't send."""
    return json.dumps(custom_id)


def _custom_id(value: str) -> str:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, str):
        raise BadRequest("That is no line of this page.", param="line")
    return found


def _number(typed: str, kind: type[int] | type[float], name: str) -> float:
    try:
        found = kind(typed)
    except ValueError:
        found = -1
    if not 0 <= found <= 10_000_000:
        whole = "a whole number" if kind is int else "a number"
        raise BadRequest(f"{name} must be {whole} from 0.", param=name)
    return found
