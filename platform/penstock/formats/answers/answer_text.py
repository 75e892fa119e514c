"""The text of an answer, of each endpoint that writes: what people would read first."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.formats.answers import written_answer


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]


_read_embeddings = msgspec.json.Decoder(_Embeddings).decode


def answer_text(body: bytes) -> str | None:
    """The first choice's text, or all text parts of a response; None if the answer is of no such kind."""
    try:
        answer = written_answer.read(body)
    except (ValueError, RecursionError):
        return None
    if answer.choices:
        first = answer.choices[0]
        return _joined(first.text if first.message is None else first.message.content)
    if answer.output is not None:
        return "".join(_joined(item.content) for item in answer.output if item.type == "message")
    return None


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
