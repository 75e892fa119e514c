"""The text of an answer, of each endpoint that writes: what people would read first."""

from __future__ import annotations

import json
from typing import Any

import msgspec


class _Message(msgspec.Struct):
    content: Any = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: Any = None


class _Item(msgspec.Struct):
    type: Any = None
    content: Any = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    output: list[_Item] | None = None


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]


_read = msgspec.json.Decoder(_Answer).decode
_read_embeddings = msgspec.json.Decoder(_Embeddings).decode


def answer_text(body: bytes) -> str | None:
    """The first choice's text, or all text parts of a response; None if the answer is of no such kind."""
    try:
        try:
            answer = _read(body)
        except msgspec.ValidationError:
            return None
        except msgspec.DecodeError:  # half a surrogate pair, which models do answer
            answer = msgspec.convert(_mended(json.loads(body)), _Answer)
    except (ValueError, RecursionError):
        return None
    if answer.choices:
        first = answer.choices[0]
        return _joined(first.text if first.message is None else first.message.content)
    if answer.output is not None:
        return "".join(_joined(item.content) for item in answer.output if item.type == "message")
    return None


def _mended(value: Any) -> Any:
    """The same with a replacement character for each half, so that it is text."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _joined(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def embeddings(body: bytes) -> list[list[float]] | None:
    """The vectors of an embeddings answer, in the order of its texts; None if it is none."""
    try:
        data = _read_embeddings(body).data
    except msgspec.DecodeError:
        return None
    return [one.embedding for one in sorted(data, key=lambda one: one.index)]
