"""Embeddings for the scorer `similarity`: an ordinary batch, whose lines have an answer and what was expected of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import Unreadable
from penstock.domain.evals.run import EvalRun, RunFailed
from penstock.domain.work.batch import BatchState
from penstock.formats import input as lines
from penstock.formats.answers import answer_text
from penstock.service.core.transaction import Database
from penstock.service.evals.answers import RunAnswer, fault_of
from penstock.service.results import results
from penstock.store.batches import batches

ENDPOINT: Final = "/v1/embeddings"

Vectors = tuple[list[float], list[float]]


def texts(answer: RunAnswer) -> tuple[str, str] | None:
    """What is embedded of a line; None if there are no two texts."""
    if not answer.text or not answer.expected:
        return None
    expected: Any = msgspec.json.decode(answer.expected)
    return (answer.text, expected) if isinstance(expected, str) and expected else None


def asked(found: Iterable[RunAnswer], model: str) -> Iterator[bytes]:
    """The lines of the batch, in the order of the answers."""
    for answer in found:
        pair = texts(answer)
        if pair is not None:
            yield lines.write(answer.custom_id, ENDPOINT, {"model": model, "input": list(pair)})


def read(db: Database, blobs: Blobs, run: EvalRun) -> Iterator[tuple[bytes, Vectors | str]]:
    """By custom_id two vectors, or why there are none, in the order of `asked`; raise RunFailed."""
    batch = db.run(lambda tx: batches.get(tx.conn, run.tenant, run.embeddings or ""))
    if batch is None:
        raise RunFailed("batch_gone", f"The batch {run.embeddings}, which embedded its answers, was deleted.")
    if batch.state is not BatchState.COMPLETED:
        why = f": {batch.errors[0]['message']}" if batch.errors else ""
        raise RunFailed("embeddings_failed", f"The batch {batch.id}, which embeds its answers, has {batch.state}{why}")
    try:
        for _, end in results.of(db, blobs, batch):
            vectors = None if end.failed else answer_text.embeddings(end.body)
            key = (end.custom_id or "").encode()
            if vectors is not None and len(vectors) == 2:
                yield key, (vectors[0], vectors[1])
            else:
                yield key, f"no embedding: {fault_of(end) if end.failed else 'the answer holds none'}"
    except Unreadable as error:
        raise RunFailed("results_gone", f"The results of {batch.id} can't be read: {error}") from error
