"""Vectors: those of an embeddings answer, as floats or as base64, and how near they are to each other."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec


class _Item(msgspec.Struct):
    index: int
    embedding: str | list[float]


class _Answer(msgspec.Struct):
    data: list[_Item]


_read = msgspec.json.Decoder(_Answer).decode


def vector(shown: Any) -> Any:
    """An array of floats: of numbers, or of base64 of little-endian ones of four bytes.

    Raises ValueError or TypeError for what is none.
    """
    import numpy as np

    if isinstance(shown, str):
        return np.frombuffer(base64.b64decode(shown, validate=True), dtype="<f4").astype(float)
    found = np.asarray(shown, dtype=float)
    if found.ndim != 1:
        raise TypeError("it is no vector")
    return found


def vectors(body: bytes) -> list[Any] | None:
    """An answer's, in the order of its texts; None if it is none, or lacks one of them."""
    try:
        items = sorted(_read(body).data, key=lambda one: one.index)
        found = [vector(one.embedding) for one in items]
    except (ValueError, RecursionError):
        return None
    return found if [one.index for one in items] == list(range(len(items))) else None


def similarities(first: Any, others: Sequence[Any]) -> list[float] | None:
    """The cosine of the angle between a vector and each of some others; equal vectors have equal ones.

    None where it can't be said: of different dimensions, or of one without a direction.
    """
    import numpy as np

    if not len(first) or any(len(one) != len(first) for one in others):
        return None
    every = np.stack([first, *others])
    largest = np.abs(every).max(axis=1, keepdims=True)
    if not (np.isfinite(largest) & (largest > 0)).all():
        return None
    every = every / largest  # so that no square is out of range
    every /= np.sqrt((every * every).sum(axis=1, keepdims=True))
    found: list[float] = (every[1:] * every[0]).sum(axis=1).tolist()
    return found
