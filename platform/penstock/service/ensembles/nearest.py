"""Nearest: what a classifier that embeds is asked of a request, and the label whose text is nearest to it."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.domain.ensembles.ensemble import Classifier
from penstock.domain.inference_endpoints import EMBEDDINGS
from penstock.formats.answers.vectors import similarities, vectors
from penstock.formats.routed_request import last_of_user
from penstock.formats.transcript import with_prompt


class _Kept(msgspec.Struct):
    similarities: dict[str, float] | None = None


_read_kept = msgspec.json.Decoder(_Kept).decode
_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def question(classifier: Classifier, name: str, body: bytes) -> bytes:
    """The body of what it is asked: vectors of the last user message, and of each text that stands for a label."""
    texts = [last_of_user(body)[: classifier.reads_chars], *(text for _, text in classifier.texts)]
    return with_prompt(EMBEDDINGS, body, texts, name, bare=True)


def label(classifier: Classifier, body: bytes) -> str | None:
    """The label of the nearest text, by cosine; of several that are as near the first label. None: no vectors."""
    near = _similarities(classifier, body)
    return max(classifier.labels, key=lambda one: near[one]) if near.keys() >= set(classifier.labels) else None


def kept(classifier: Classifier, body: bytes) -> bytes:
    """An answer as it is kept: how near each label is, in the place of vectors, which are long.

    What has no vectors stays as it is.
    """
    try:
        fields: dict[str, Any] = dict(_read_fields(body))
    except (ValueError, RecursionError):
        return body
    if "data" not in fields:
        return body
    del fields["data"]
    written: bytes = _encode(fields | {"similarities": _similarities(classifier, body)})
    return written


def _similarities(classifier: Classifier, body: bytes) -> dict[str, float]:
    """Of each label's nearest text; nothing of what can't be compared."""
    try:
        if (known := _read_kept(body).similarities) is not None:
            return known
    except (ValueError, RecursionError):
        return {}
    found, texts = vectors(body), classifier.texts
    if found is None or len(found) != 1 + len(texts):
        return {}
    near: dict[str, float] = {}
    for (one, _), similarity in zip(texts, similarities(found[0], found[1:]) or (), strict=False):
        near[one] = max(similarity, near.get(one, similarity))
    return near
