"""Folding: one answer for each line of a fold, made of what its members said; or whom to ask next, for which lines.

Members' answers go to scratch and are read from there line by line, so memory is some bytes a line. Running it again
from any point gives the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from penstock.blobs.store import Blobs
from penstock.domain.accounts.price import Price
from penstock.domain.api_errors import LeaseLost
from penstock.domain.ensembles.ensemble import EnsembleKind
from penstock.domain.line_errors import CRASHED
from penstock.domain.reuse import ReuseSource
from penstock.domain.work.fold_claim import FoldClaim
from penstock.domain.work.slice import Claim
from penstock.failpoint import failpoint
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.formats.answers import member_line
from penstock.formats.output import NO_USAGE, Record
from penstock.formats.routed_request import asks_logprobs
from penstock.service.core import scratch
from penstock.service.core.ids import blob_key
from penstock.service.core.transaction import Database, Transaction
from penstock.service.ensembles.fold import Fold, MemberAnswer
from penstock.service.ensembles.routing import Unroutable
from penstock.service.lifecycle import folds, work
from penstock.service.results.member_answers import MemberAnswers, fetched
from penstock.settings import Settings
from penstock.store.accounts import prices
from penstock.store.work import folds as rows
from penstock.store.work.folds import MemberSegment, MemberSlice, OwnPlan, Voted

_PIECE_BYTES: Final = 1 << 20
_CANCELLED: Final = MemberAnswer("cancelled", code="batch_closed")
_SPARED: Final = MemberAnswer("cancelled", code=CRASHED[0])
_UNAVAILABLE: Final = MemberAnswer("unavailable", code="no_worker")


@dataclass(frozen=True)
class FoldOutcome:
    """What one fold came to: lines that have their answer or error now, and lines that later members are asked."""

    lines: int = 0
    failed: int = 0
    """Of these."""
    asked: int = 0
    votes: int = 0
    """Lines that a vote decided."""
    tied: int = 0
    """Of these: those of which another label had as much weight."""
    agreement: float = 0.0
    """The sum of theirs."""


class Folding:
    """One claimed fold, from its members' segments to its own. `run` is called once."""

    def __init__(self, db: Database, blobs: Blobs, one: FoldClaim, settings: Settings) -> None:
        self._db = db
        self._blobs = blobs
        self._one = one
        self._settings = settings
        self._fold = Fold(one.definition, one.version, settings.bytes_per_token)
        self._picked: dict[int, list[int]] = {}
        self._questions: list[bytes] = []
        """The judge's, framed as lines of a plan."""
        self._records: list[Record] = []
        self._votes, self._tied, self._agreement = 0, 0, 0.0
        """Of this run."""
        self._voted = Voted()
        """Of what was recorded before it."""
        self._bytes = 0
        self._recorded = self._failed = 0
        self._seq = 0

    def run(self) -> FoldOutcome:
        """Fold all lines, record them, and settle the fold or let it wait for those that it asks.

        Raises LeaseLost, Unavailable, NoSpace, or ValueError for bytes that can't be read.
        """
        claim = self._one.claim
        members = self._db.run(_members, claim.slice)
        if self._one.definition.kind is EnsembleKind.VOTE:
            self._voted = self._db.run(_voted, claim.slice)
        priced = self._db.run(_prices, members) if self._one.definition.max_cost is not None else {}
        closing = any(one.closing for one in members)
        pieces = self._db.run(_segments, claim.slice)
        scratch.check(self._settings.scratch_dir, sum(piece.bytes for _, piece in pieces))
        with (
            scratch.folder(self._settings.scratch_dir, "fold-") as folder,
            fetched(pieces, self._blobs, folder / "answers") as answers,
        ):
            for line in self._lines():
                known = self._known(line.number, members, answers, priced, closing)
                try:
                    self._line(line, known, members, closing)
                except Unroutable as error:  # a pattern of rules that are read once there is a label
                    fault = (error.code, error.message)
                    self._keep(output.ended(claim.batch, line.number, line.custom_id, fault))
                if self._bytes >= _PIECE_BYTES:
                    self._record()
        failpoint("fold.folded")
        if self._picked:
            self._record()
            self._db.run(folds.ask, self._one, self._picked, self._plans(), self._settings)
            failpoint("fold.asked")
        else:
            self._record(ends=True)
        asked = sum(map(len, self._picked.values()))
        return FoldOutcome(self._recorded, self._failed, asked, self._votes, self._tied, self._agreement)

    def _lines(self) -> Iterator[lines.Line]:
        """The lines that have no answer yet, as they were asked."""
        claim = self._one.claim
        data = self._blobs.range(claim.plan_key or "", claim.plan_offset, claim.plan_bytes)
        for number, line in plan.unframe(data):
            if number not in claim.recorded:
                yield lines.read(number, line)

    def _known(
        self,
        number: int,
        members: Sequence[MemberSlice],
        answers: MemberAnswers,
        priced: Mapping[str, Price],
        closing: bool,
    ) -> dict[int, MemberAnswer]:
        """What came of each member that was to be asked this line, by its place."""
        known: dict[int, MemberAnswer] = {}
        for one in members:
            if (said := answers.of(number, one.place)) is not None:
                known[one.place] = _answer(said, priced.get(one.model))
            elif one.place in self._one.definition.first or (one.picked is not None and number in one.picked):
                known[one.place] = _CANCELLED if closing else _UNAVAILABLE  # or it was passed over
        return known

    def _line(
        self, line: lines.Line, known: dict[int, MemberAnswer], members: Sequence[MemberSlice], closing: bool
    ) -> None:
        """Answer a line, give it its error, or ask further members. Of a closing batch it is answered or left."""
        waiting = {one.place for one in members if one.waits and not closing}
        keeps = self._one.definition.reads_logprobs and asks_logprobs(line.body)
        fold = partial(self._fold.fold, keeps_logprobs=keeps, endpoint=line.url, request=line.body)
        folded = fold(known)
        while folded.verdict.asks:
            deadly = self._one.definition.in_turn and any(one.code == CRASHED[0] for one in known.values())
            if not deadly and all(place in waiting for place in folded.verdict.asks):
                for place in folded.verdict.asks:
                    self._ask(place, line, known)
                return
            # A line that two engines died of is not tried on the next member's.
            gone = _SPARED if deadly else _CANCELLED if closing else _UNAVAILABLE
            known |= dict.fromkeys(folded.verdict.asks, gone)
            folded = fold(known)
        batch = self._one.claim.batch
        if folded.verdict.agreement is not None:
            self._votes += 1
            self._tied += folded.verdict.tied
            self._agreement += folded.verdict.agreement
        if folded.body is not None:
            reused = all(one.outcome == "reused" for one in known.values() if one.body is not None)
            source = ReuseSource.SHARED if reused else None  # whichever: the tokens are its members'
            record = output.answered(batch, line.number, line.custom_id, 200, None, folded.body, reused=source)
            self._keep(dataclasses.replace(record, usage=NO_USAGE))
        elif folded.error is not None and not closing:
            self._keep(output.ended(batch, line.number, line.custom_id, folded.error))

    def _ask(self, place: int, line: lines.Line, known: Mapping[int, MemberAnswer]) -> None:
        self._picked.setdefault(place, []).append(line.number)
        if place == len(self._one.definition.members) and self._one.definition.judge is not None:
            body = self._fold.question(line.url, line.body, known)
            self._questions.append(plan.frame(line.number, lines.write(line.custom_id, line.url, msgspec.Raw(body))))

    def _plans(self) -> dict[int, OwnPlan]:
        """Write what the judge is asked."""
        if not self._questions:
            return {}
        key, questions = blob_key(self._one.claim.tenant, "plans"), b"".join(self._questions)
        self._db.run(work.intend, key)
        self._blobs.put(key, questions)
        return {len(self._one.definition.members): OwnPlan(key, len(questions))}

    def _keep(self, record: Record) -> None:
        self._records.append(record)
        self._bytes += len(record.line)
        self._recorded += 1
        self._failed += record.failed

    def _record(self, *, ends: bool = False) -> None:
        """Record what is folded, and settle the fold if it `ends`; the tokens are its members'."""
        claim = self._one.claim
        answers = []
        if self._records:
            self._seq += 1
            key = blob_key(claim.tenant, "segments")
            one = work.SliceAnswers(claim, self._seq, self._records, key)
            self._db.run(work.intend, key)
            self._blobs.put(key, one.framed)
            answers.append(one)
        failpoint("fold.recording")
        if answers or ends:
            voted = self._voted + Voted(self._votes, self._agreement)
            self._db.run(_commit, claim, answers, voted, ends=ends)
        self._records, self._bytes = [], 0
        failpoint("fold.recorded")


def _commit(tx: Transaction, claim: Claim, answers: Sequence[work.SliceAnswers], voted: Voted, *, ends: bool) -> None:
    """Record a part of a fold, the last one if it `ends`, and how its lines are voted so far. Raises LeaseLost."""
    if claim.lease in work.record(tx, answers, [claim] if ends else []):
        raise LeaseLost
    if voted.lines:
        rows.agree(tx.conn, claim.slice, voted)


def _voted(tx: Transaction, fold: int) -> Voted:
    return rows.voted(tx.conn, fold)


def _prices(tx: Transaction, members: Sequence[MemberSlice]) -> dict[str, Price]:
    return prices.valid(tx.conn, sorted({one.model for one in members}))


def _members(tx: Transaction, fold: int) -> list[MemberSlice]:
    return rows.members(tx.conn, fold)


def _segments(tx: Transaction, fold: int) -> list[MemberSegment]:
    return rows.segments(tx.conn, fold)


def _answer(line: bytes, price: Price | None) -> MemberAnswer:
    """What an output line says of its member, and what its tokens cost if that counts."""
    found = member_line.read(line)
    if found.response is None:
        code = found.error.code if found.error else None
        return MemberAnswer("failed", code=code or "unknown")
    body, status = bytes(found.response.body), found.response.status_code
    tokens, ms = member_line.told(body)
    if found.answered:
        reused = found.response.cached
        cost = 0 if price is None else price.tokens(output.usage_of(body, reused=reused))
        return MemberAnswer("reused" if reused else "answered", body, tokens=tokens, ms=ms, cost=cost)
    code = member_line.refusal_code(body, status)
    if code == member_line.NOT_JSON:
        return MemberAnswer("failed", code="not_json", ms=ms)  # as in a call: that was no engine's word
    return MemberAnswer("refused", code=code, tokens=tokens, ms=ms, refused_status=status)
