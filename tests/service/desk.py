"""A desk: batches over real input files, validated and assembled as an io worker does it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from store import as_holder
from store.world import CHAT, MODEL, World

from penstock.blobs.store import Blobs
from penstock.domain.work.lane import LANES
from penstock.domain.work.terms import Terms
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.service.core.ids import blob_key, fresh
from penstock.service.core.transaction import Transaction
from penstock.service.intake import submit
from penstock.service.lifecycle import work
from penstock.service.planning import validate
from penstock.service.results import assemble
from penstock.store.batches import files


def request(custom_id: Any, model: Any = MODEL, **changes: Any) -> bytes:
    """One request as a line without its end; `changes` replace or (None) take away fields."""
    whole = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": model, "max_tokens": 16}}
    return msgspec.json.encode({name: value for name, value in (whole | changes).items() if value is not None})


class Desk:
    """What an io worker and gpu workers do to one batch after the other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.blobs = Blobs(world.settings.blob_url)

    def batch(self, content: bytes, output_expires_seconds: int | None = None, **terms: Any) -> str:
        """A batch over a file with this content, waiting to be validated."""
        key = blob_key("acme", "files")
        self.blobs.put(key, content)

        def create(tx: Transaction) -> str:
            file = fresh("file-")
            files.intend(tx.conn, key)
            files.insert(
                tx.conn,
                "acme",
                id=file,
                purpose="batch",
                filename="in.jsonl",
                bytes=len(content),
                sha256=hashlib.sha256(content).digest(),
                blob_key=key,
                ttl=None,
            )
            asked = Terms(CHAT, output_expires_seconds=output_expires_seconds, **terms)
            return submit.create_batch(tx, "acme", file, asked, None, self.world.settings).id

        return self.world.db.run(create)

    def validate(self, content: bytes, **kwargs: Any) -> str:
        """A batch that was validated."""
        batch = self.batch(content, **kwargs)
        self.validate_it(batch)
        return batch

    def validate_it(self, batch: str) -> None:
        """Validate one that is there."""
        found, lease = self.world.claim_batch(batch, "validate")
        validate.validate(self.world.db, self.blobs, found, lease, self.world.settings)

    def errors(self, content: bytes, **terms: Any) -> list[tuple[str, str | None, int | None]]:
        """Code, param and line of each error of a batch over this content; it must have failed."""
        found = self.world.find(self.validate(content, **terms))
        assert found.state == "failed"
        return [(error["code"], error["param"], error["line"]) for error in found.errors]

    def plan(self, batch: str) -> bytes:
        """The bytes of the plan copy."""
        return self.blobs.read(self.world.find(batch).plan_key or "")

    def answer(
        self,
        batch: str,
        model: str = MODEL,
        *,
        failed: frozenset[int] = frozenset(),
        slices: int = 99,
        bodies: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        """Claim, read, answer and settle some slices of a batch, one segment for each slice."""
        worker = self.world.worker(model)
        for _ in range(slices):
            claim = self.world.claim(worker, *LANES)
            if claim is None:
                return
            assert claim.batch == batch
            assert claim.plan_key
            read = self.blobs.range(claim.plan_key, claim.plan_offset, claim.plan_bytes)
            records = [
                output.answered(
                    batch,
                    number,
                    lines.custom_id_of(line),
                    400 if number in failed else 200,
                    "r",
                    bodies.get(number, b'{"n":%d}' % number),
                )
                for number, line in plan.unframe(read)
            ]
            key = blob_key("acme", "segments")
            self.world.db.run(work.intend, key)
            self.blobs.put(key, work.SliceAnswers(claim, 1, records).framed)
            self.world.db.run(as_holder.flush, claim, 1, records, key)
            self.world.db.run(as_holder.settle, claim)

    def assemble(self, batch: str) -> assemble.Assembled:
        """Put a finalizing batch's answers together."""
        found, lease = self.world.claim_batch(batch, "assemble")
        return assemble.assemble(self.world.db, self.blobs, found, lease, self.world.settings)

    def result(self, batch: str, which: str) -> bytes | None:
        """The bytes of the batch's `output` or `error` file, as its tenant may read them."""
        found = self.world.find(batch)
        id = found.output_file if which == "output" else found.error_file
        if id is None:
            return None
        file = self.world.db.run(lambda tx: files.get(tx.conn, "acme", id))
        assert file is not None
        data = self.blobs.read(file.blob_key)
        assert len(data) == file.bytes
        return data
