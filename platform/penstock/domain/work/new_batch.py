"""New batches: what is known of a batch or job before its row is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from penstock.domain.idempotency import Once
from penstock.domain.work.retry import Retry
from penstock.domain.work.slice import Cut
from penstock.domain.work.terms import Terms


@dataclass(frozen=True)
class NewBatch:
    """A batch or job that is to be made."""

    id: str
    tenant: str
    kind: str
    """`batch` or `job`."""
    terms: Terms
    window: timedelta
    """The completion window of its terms as a time; the deadline counts from the database's clock."""
    once: Once | None = None
    input_file: str | None = None
    input_key: str | None = None
    """Where the file's bytes are; None for a retry, whose input is derived when it is validated."""
    parent: str | None = None
    root: str | None = None
    repeats: Retry | None = None
    reads: tuple[str, ...] = ()
    """Files that a retry reads until it has ended."""


@dataclass(frozen=True)
class NewJob:
    """A small job that is to be made: in progress at once, with its one slice."""

    batch: NewBatch
    cut: Cut
    inline: bytes
    """Its lines, as a plan frames them."""
    model: str | None = None
    """What its lines ask; None: what their engine is called."""
    versions: Mapping[str, int] = field(default_factory=dict)
    """The versions that it is pinned to, by name; none where the model has none yet."""

    @property
    def asked(self) -> str:
        """What its lines ask."""
        return self.model or self.cut.model
