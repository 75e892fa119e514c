"""Stream usage: what a stream says of the tokens that it took, and the sum of that and of what came before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.formats.answers.call_answer import fields_of
from penstock.formats.answers.folded_answer import summed_usage

_WORD: Final = b'"usage"'
_DATA: Final = b"data: "
_NOTHING: Final = (b"null", b"[]")
_encode = msgspec.json.encode


def with_sum(events: bytes, before: Mapping[str, Any] | None, *, wanted: bool) -> bytes:
    """Whole events whose usage is the sum of theirs and of what was used before them.

    Unless it is `wanted`, chunks say none; a response always does.
    """
    if _WORD not in events:
        return events
    kept: list[bytes] = []
    dropped = False
    for line in events.split(b"\n"):
        if dropped and not line.strip():
            dropped = False  # the empty line that ended it
            continue
        changed = _changed(line, before, wanted) if line.startswith(b"data: {") and _WORD in line else line
        if changed is not None:
            kept.append(changed)
        dropped = changed is None
    return b"\n".join(kept)


def _changed(line: bytes, before: Mapping[str, Any] | None, wanted: bool) -> bytes | None:
    try:
        fields: dict[str, Any] = dict(fields_of(line[len(_DATA) :]))
        if "response" in fields:
            response: dict[str, Any] = dict(fields_of(fields["response"]))
            fields["response"] = response | _summed(response, before)
        elif wanted:
            fields |= _summed(fields, before)
        elif _says(fields) and bytes(fields.get("choices", b"")) == b"[]":
            return None
        else:
            fields.pop("usage", None)
    except ValueError:
        return line  # not ours to judge
    return _DATA + _encode(fields)


def _says(fields: Mapping[str, Any]) -> bool:
    return bytes(fields.get("usage", b"null")) != b"null"


def _summed(fields: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    if not _says(fields):
        return {}
    parts = [{"usage": fields["usage"]}] if before is None else [{"usage": before}, {"usage": fields["usage"]}]
    return {"usage": summed_usage(map(_encode, parts))}


def body_of_usage(events: bytes) -> bytes:
    """What a stream's events said that wrote nothing: an answer that has a usage, and nothing else."""
    for line in reversed(events.split(b"\n")):
        if line.startswith(b"data: {") and _WORD in line:
            try:
                fields = fields_of(line[len(_DATA) :])
                fields = fields_of(fields["response"]) if "response" in fields else fields
            except ValueError:
                continue
            if _says(fields):
                return _encode({"usage": fields["usage"]})
    return b"{}"
