"""Response streams: a whole response as the events of a stream: it begins, each item of its output comes, it ends.

response.created · response.in_progress
    for each item          output_item.added … output_item.done
        a message's part   content_part.added · output_text.delta … · output_text.done · content_part.done
response.completed, or .incomplete, or .failed
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from penstock.formats.answers.text_pieces import pieces

_ENDS: Final = {"incomplete": "response.incomplete", "failed": "response.failed"}
_TEXTS: Final = ("output_text", "reasoning_text")
_Fields = dict[str, msgspec.Raw]
_read_items = msgspec.json.Decoder(list[_Fields]).decode
_read = msgspec.json.Decoder().decode
_read_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode
_Said = tuple[str, dict[str, Any]]


def response_events(response: _Fields) -> Iterator[bytes]:
    """The events of a response, in their order. Raises DecodeError and KeyError for what is none."""
    for number, (name, said) in enumerate(_all(response)):
        data = _encode({"type": name, "sequence_number": number, **said})
        yield b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _all(response: _Fields) -> Iterator[_Said]:
    begun: dict[str, Any] = {
        **response,
        "status": "in_progress",
        "output": [],
        "usage": None,
        "incomplete_details": None,
    }
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for place, item in enumerate(_read_items(response["output"])):
        yield from _item(item, place)
    status = _read(response["status"]) if "status" in response else None
    yield (
        _ENDS.get(status, "response.completed") if isinstance(status, str) else "response.completed",
        {"response": response},
    )


def _item(item: _Fields, place: int) -> Iterator[_Said]:
    parts = _read_items(item["content"]) if bytes(item.get("content", b""))[:1] == b"[" else None
    opened = {**item, "status": "in_progress", **({} if parts is None else {"content": []})}
    yield "response.output_item.added", {"output_index": place, "item": opened}
    for index, part in enumerate(parts or ()):
        yield from _part(part, {"item_id": item.get("id", ""), "output_index": place, "content_index": index})
    yield "response.output_item.done", {"output_index": place, "item": item}


def _part(part: _Fields, where: dict[str, Any]) -> Iterator[_Said]:
    kind = _read(part["type"])
    if kind not in _TEXTS:
        yield "response.content_part.added", {**where, "part": part}
        yield "response.content_part.done", {**where, "part": part}
        return
    text = _read_text(part["text"])
    rows = _rows(part.get("logprobs"))

    def saying(said: dict[str, Any], those: slice) -> dict[str, Any]:
        return {**where, **said, **({"logprobs": [row for _, row in rows[those]]} if kind == "output_text" else {})}

    begun: dict[str, Any] = {name: [] for name in ("annotations", "logprobs") if name in part}
    yield "response.content_part.added", {**where, "part": {**part, "text": "", **begun}}
    for piece, those in pieces(text, [token for token, _ in rows]):
        yield f"response.{kind}.delta", saying({"delta": piece}, those)
    yield f"response.{kind}.done", saying({"text": text}, slice(None))
    yield "response.content_part.done", {**where, "part": part}


class _Token(msgspec.Struct):
    token: str


def _rows(written: msgspec.Raw | None) -> list[tuple[str, msgspec.Raw]]:
    """A text's tokens, and what is said of each; none if that is not said."""
    if written is None or bytes(written) == b"null":
        return []
    rows = msgspec.json.decode(written, type=list[msgspec.Raw])
    return [(msgspec.json.decode(row, type=_Token).token, row) for row in rows]
