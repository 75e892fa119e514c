"""What an io worker does with one fold, by the rows alone: a line that nobody answered is asked of the next member."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import text

from penstock.domain.api_errors import LeaseLost
from penstock.domain.work.fold_claim import FoldClaim
from penstock.domain.work.holder import Holder
from penstock.formats import output
from penstock.formats.output import NO_USAGE, Record
from penstock.service.core.transaction import Transaction
from penstock.service.ensembles import ensembles
from penstock.service.lifecycle import folds, work
from penstock.settings import Settings
from penstock.store.batches import batches

BODY = b'{"choices":[{"finish_reason":"stop","text":"x"}]}'
_LINES = text("""
    select line, exists (
               select from slices m join segments g on g.slice = m.id
               where m.fold = s.id and line = any(g.lines) and not line = any(g.failed_lines)) as answered,
           (select min(m.place) from slices m where m.fold = s.id and m.state = 'waiting') as next,
           b.finish_as is not null as closing
    from slices s join batches b on b.id = s.batch, generate_series(s.first_line, s.last_line) as line
    where s.id = :fold and not exists (select from segments g where g.slice = s.id and line = any(g.lines))
    order by line""")


def definition(kind: str, *models: str) -> dict[str, Any]:
    """An ensemble of these members."""
    more = {"accept": {"regex": "x"}} if kind == "cascade" else {}
    return {"name": f"{kind}-of-{len(models)}", "kind": kind, "members": [{"model": one} for one in models], **more}


def add(tx: Transaction, kind: str, *models: str) -> Any:
    """The ensemble, which is there from now on."""
    return ensembles.add(tx, definition(kind, *models))


def claim(tx: Transaction, holder: Holder, batch: str, settings: Settings) -> FoldClaim | None:
    """Take the batch's next due fold."""
    return folds.claim(tx, holder, batch, uuid.uuid4(), settings)


@dataclass(frozen=True)
class Decided:
    """What is to be done with a fold's lines."""

    records: list[Record]
    picked: dict[int, list[int]]


def decide(tx: Transaction, one: FoldClaim) -> Decided:
    """By what its members recorded; a line that nobody answered and nobody else can is failed, or left if it closes."""
    batch, records = one.claim.batch, []
    picked: dict[int, list[int]] = {}
    for row in tx.conn.execute(_LINES, {"fold": one.claim.slice}):
        if row.answered or (row.next is None and not row.closing):
            records.append(record(batch, row.line, failed=not row.answered))
        elif row.next is not None:
            picked.setdefault(row.next, []).append(row.line)
    return Decided(records, picked)


def record(batch: str, line: int, *, failed: bool = False) -> Record:
    """A folded line, which used nothing itself."""
    made = output.answered(batch, line, f"q-{line}", 400 if failed else 200, "req", BODY)
    return replace(made, usage=NO_USAGE)


def keep(tx: Transaction, one: FoldClaim, records: list[Record], seq: int) -> None:
    """Record what is decided; raise LeaseLost."""
    if records and work.record(tx, [work.SliceAnswers(one.claim, seq, records)], []):
        raise LeaseLost


def fold(tx: Transaction, one: FoldClaim, settings: Settings, seq: int = 1_000) -> Decided:
    """All of it in one transaction: record what is decided, and ask further or settle; raise LeaseLost."""
    batches.lock(tx.conn, one.claim.batch)  # before the slice: both are locked in this order everywhere
    decided = decide(tx, one)
    keep(tx, one, decided.records, seq)
    end(tx, one, decided, settings)
    return decided


def end(tx: Transaction, one: FoldClaim, decided: Decided, settings: Settings) -> None:
    """Ask further or settle; raise LeaseLost."""
    if decided.picked:
        folds.ask(tx, one, decided.picked, {}, settings)
    elif work.record(tx, [], [one.claim]):
        raise LeaseLost
