"""Mixed answers: one answer of vectors, scores or ranks made of several models'."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import msgspec

from penstock.domain.ensembles.ensemble import Method
from penstock.domain.ensembles.mixing import mixed, shares
from penstock.domain.inference_endpoints import CALLED, NumberKind
from penstock.formats.answers.vectors import vector

Item = dict[str, Any]
_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_items = msgspec.json.Decoder(list[dict[str, Any]]).decode
_encode = msgspec.json.Encoder().encode
_PLACES: Final = {
    NumberKind.VECTORS: ("data", "embedding"),
    NumberKind.SCORES: ("data", "score"),
    NumberKind.RANKS: ("results", "relevance_score"),
}
"""Where an answer has its items, and each item its number."""


def mixed_answer(
    endpoint: str,
    method: Method,
    weights: Sequence[int | Fraction],
    bodies: Sequence[bytes],
    top_n: int | None = None,
) -> bytes:
    """The first body with numbers that are made of all.

    Vectors: their weighted mean, of length 1, as floats or base64 as they came. Scores and ranks: as `method` says;
    ranks are sorted anew, and the first `top_n` of them kept. Raises ValueError, with a reason, where the answers don't
    go together.
    """
    kind = CALLED[endpoint].numbers
    assert kind is not None, "it was asked what has numbers"
    place, name = _PLACES[kind]
    read = vector if kind is NumberKind.VECTORS else float
    try:
        fields = [_read_fields(body) for body in bodies]
        items = [{int(item["index"]): item for item in _read_items(one[place])} for one in fields]
        numbers = [{index: read(one[name]) for index, one in some.items()} for some in items]
    except (ValueError, RecursionError, KeyError, TypeError, ArithmeticError):
        raise ValueError("one of them has no such numbers") from None
    made = _vectors(weights, numbers) if kind is NumberKind.VECTORS else mixed(method, weights, numbers)
    shown: list[Item] = [
        items[0][index] | {name: _as_written(items[0][index][name], number)} for index, number in sorted(made.items())
    ]
    if kind is NumberKind.RANKS:
        shown.sort(key=lambda item: -item[name])
        shown = shown[:top_n]
    written: bytes = _encode(fields[0] | {place: msgspec.Raw(_encode(shown))})
    return written


def _vectors(weights: Sequence[int | Fraction], each: Sequence[dict[int, Any]]) -> dict[int, Any]:
    import numpy as np

    if any(one.keys() != each[0].keys() for one in each):
        raise ValueError("they have different numbers of vectors")
    parts, made = shares(weights), {}
    for index in each[0]:
        vectors = [one[index] for one in each]
        if len(sizes := sorted({len(vector) for vector in vectors})) > 1:
            raise ValueError(f"their vectors have {' and '.join(map(str, sizes))} dimensions")
        mean = sum((part * vector for part, vector in zip(parts, vectors, strict=True)), np.zeros(sizes[0]))
        length = float(np.linalg.norm(mean))
        if not math.isfinite(length) or length == 0:
            raise ValueError("their vectors have no mean with a direction")
        made[index] = mean / length
    return made


def _as_written(before: Any, number: Any) -> Any:
    if isinstance(number, float):
        return number
    return base64.b64encode(number.astype("<f4").tobytes()).decode() if isinstance(before, str) else number.tolist()
