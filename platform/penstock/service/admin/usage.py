"""Usage: a tenant asks what its work took, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from penstock.domain.accounts.usage_report import UsageGroup, UsageRow
from penstock.domain.api_errors import NotFound
from penstock.service.core.transaction import Transaction
from penstock.store.accounts import prices, usage
from penstock.store.fleet import models as known_models


@dataclass(frozen=True)
class UsageSpan:
    """One bucket of time, and what was used in it; nothing if it is empty."""

    start: datetime
    end: datetime
    used: tuple[UsageRow, ...]


@dataclass(frozen=True)
class Report:
    """Spans in order, the currency of their costs, and where the next page begins."""

    spans: tuple[UsageSpan, ...]
    currency: str | None
    next_start: datetime | None


def report(
    tx: Transaction,
    tenant: str,
    *,
    start: datetime,
    end: datetime,
    width: timedelta,
    limit: int,
    by: Set[UsageGroup] = frozenset(),
    models: Sequence[str] | None = None,
) -> Report:
    """What was used from `start` on, which is cut to a whole hour (UTC), in at most so many spans before `end`.

    It ends early, with whole spans, where they hold 10,000 rows or more: the next page has the rest.

    Raises NotFound if one of the models is not known: no usage of a misspelt name would be a wrong answer.
    """
    if models:
        known = known_models.known(tx.conn, list(models))
        for model in models:
            if model not in known:
                raise NotFound("model", model, param="models", code="model_not_found")
    first = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    starts: list[datetime] = []
    while first < end and len(starts) < limit:
        starts.append(first)
        first += width
    found: list[UsageRow] = []
    if starts:
        found = usage.used(
            tx.conn,
            tenant,
            start=starts[0],
            stop=first,
            width=width,
            by=by,
            models=None if models is None else list(models),
        )
        if len(found) >= usage.MOST_ROWS:
            starts = [at for at in starts if at <= found[-1].start]
            first = starts[-1] + width
    spans = tuple(UsageSpan(at, at + width, tuple(one for one in found if one.start == at)) for at in starts)
    return Report(spans, prices.currency(tx.conn), first if first < end else None)
