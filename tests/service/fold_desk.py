"""A desk for folds: what members' workers and the io worker do to a batch of an ensemble, one step after the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from service.desk import Desk
from store import as_holder
from store.world import CHAT

from penstock.domain.work.fold_claim import FoldClaim
from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import LANES
from penstock.domain.work.slice import Claim
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.service.core.ids import blob_key
from penstock.service.lifecycle import dispatch, folds, work
from penstock.service.results.folding import Folding

Says = Callable[[int], str | int | bytes | None]
"""What a member says of a line: a text, the whole answer, the status of a refusal, or nothing yet."""


class FoldDesk:
    """A batch to an ensemble, its members' workers and the io worker."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.world = desk.world
        self.workers: dict[str, Holder] = {}
        self.io = desk.world.worker()

    def batch(self, model: str, count: int = 4, **more: Any) -> str:
        """One that is planned; the members have workers."""
        for member in "abc":
            self.workers.setdefault(member, self.world.worker(member))
        sent = [
            lines.write(f"q{n}", CHAT, {"model": model, "messages": [{"role": "user", "content": f"{n}"}], **more})
            for n in range(1, count + 1)
        ]
        return self.desk.validate(b"\n".join(sent))

    def claim(self, member: str) -> Claim | None:
        """The member's next slice."""
        self.world.db.run(dispatch.feed, member, self.world.settings)
        return self.world.claim(self.workers[member], *LANES)

    def says(self, member: str, says: Says) -> list[int]:
        """Let a member answer its next slice, or a part of it; which lines it was asked."""
        claim = self.claim(member)
        assert claim is not None, f"{member} is not asked"
        asked = self.asked(claim)
        records = []
        for number in asked:
            said = says(number)
            if said is not None:
                whole = said if isinstance(said, bytes) else answer(f"{said}")
                status, body = (said, refusal(said)) if isinstance(said, int) else (200, whole)
                records.append(output.answered(claim.batch, number, f"q{number}", status, "r", body))
        if records:
            key = blob_key("acme", "segments")
            self.world.db.run(work.intend, key)
            self.desk.blobs.put(key, work.SliceAnswers(claim, 1, records).framed)
            self.world.db.run(as_holder.flush, claim, 1, records, key)
        if len(records) == len(asked):
            self.world.db.run(as_holder.settle, claim)
        else:
            self.world.db.run(work.release, claim.lease)
        return asked

    def asked(self, claim: Claim) -> list[int]:
        """The lines of a claim that a worker asks."""
        read = self.desk.blobs.range(claim.plan_key or "", claim.plan_offset, claim.plan_bytes)
        return [
            number
            for number, _ in plan.unframe(read)
            if number not in claim.recorded and (claim.picked is None or number in claim.picked)
        ]

    def due(self, batch: str) -> FoldClaim | None:
        """The next due fold in the io worker's hand."""
        return self.world.db.run(folds.claim, self.io, batch, self.world.nonce(), self.world.settings)

    def fold(self, batch: str) -> int:
        """Do all due folds; how many lines are asked further."""
        asked = 0
        while (one := self.due(batch)) is not None:
            asked += Folding(self.world.db, self.desk.blobs, one, self.world.settings).run().asked
        return asked

    def results(self, batch: str) -> dict[str, Any]:
        """By custom_id: the text of the winner and its label, or the error's code."""
        self.desk.assemble(batch)
        self.world.check()
        found = {}
        for which in ("output", "error"):
            for line in (self.desk.result(batch, which) or b"").splitlines():
                one = json.loads(line)
                if one["error"]:
                    found[one["custom_id"]] = one["error"]["code"]
                else:
                    body = one["response"]["body"]
                    found[one["custom_id"]] = body["choices"][0]["message"]["content"], body["penstock"]["winner"]
        return found


def answer(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


def refusal(status: int) -> bytes:
    return json.dumps({"error": {"message": "no", "type": "Refused", "code": status}}).encode()


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
