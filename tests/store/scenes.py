"""Scenes: states of a batch in which two transactions meet. Each is set up once, and copied in one round trip a use.

A scene is what its holders know: the batch, their claims and tasks. Copies have ids of their own, shifted by thousands.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from store import as_folder, as_holder
from store.world import MODEL, World, remaining

from penstock.domain.work.batch import Batch
from penstock.domain.work.fold_claim import FoldClaim
from penstock.domain.work.holder import Holder
from penstock.domain.work.slice import Claim
from penstock.service.lifecycle import work

_SHIFT = 10_000

_COPY = """
create function copy_scene(proto text, copy text, shift bigint, as_model text, as_holder uuid, as_keeper uuid,
                           expires timestamptz, due timestamptz) returns void language plpgsql as $$
begin
    perform set_config('session_replication_role', 'replica', true);
    insert into batches select (jsonb_populate_record(b, jsonb_build_object(
        'id', copy, 'lease', b.lease + shift, 'deadline', due,
        'input_file', b.input_file || copy, 'plan_key', b.plan_key || copy))).* from batches b where id = proto;
    insert into files select (jsonb_populate_record(f, jsonb_build_object(
        'id', f.id || copy, 'blob_key', f.blob_key || copy))).*
    from files f where id = (select input_file from batches where id = proto);
    insert into file_sums (tenant, files, bytes) select tenant, 1, bytes
    from files where id = (select input_file from batches where id = copy);  -- as its trigger does, which sleeps here
    insert into slices overriding system value select (jsonb_populate_record(s, jsonb_build_object(
        'id', s.id + shift, 'batch', copy, 'lease', s.lease + shift, 'fold', s.fold + shift,
        'model', case when s.model is null then null else as_model end))).*
    from slices s where batch = proto;
    insert into leases overriding system value select (jsonb_populate_record(l, jsonb_build_object(
        'id', l.id + shift, 'batch', copy, 'slice', l.slice + shift, 'nonce', gen_random_uuid(),
        'holder', case when l.kind = 'slice' and (select s.model is not null from slices s where s.id = l.slice)
                  then as_holder else as_keeper end,
        'opened_at', clock_timestamp(), 'expires_at', expires))).*
    from leases l where batch = proto;
    insert into segments overriding system value select (jsonb_populate_record(g, jsonb_build_object(
        'id', g.id + shift, 'slice', g.slice + shift, 'lease', g.lease + shift))).*
    from segments g join slices s on s.id = g.slice where s.batch = proto;
    insert into trail overriding system value select (jsonb_populate_record(t, jsonb_build_object(
        'id', t.id + shift, 'batch', copy, 'slice', t.slice + shift, 'lease', t.lease + shift))).*
    from trail t where batch = proto;
    perform setval(pg_get_serial_sequence(name, 'id'), shift + 5000)
    from unnest(array['slices', 'leases', 'segments', 'trail']) as name;
    update workers set seen_at = clock_timestamp(), beaten_at = clock_timestamp();
end $$;
create function forget_scene(copy text) returns void language plpgsql as $$
begin
    perform set_config('session_replication_role', 'replica', true);
    delete from suspects where slice in (select id from slices where batch = copy);
    delete from leftovers where batch = copy;
    delete from segments where slice in (select id from slices where batch = copy);
    delete from leases where batch = copy;
    delete from slices where batch = copy;
    delete from events where batch = copy;
    delete from trail where batch = copy;
    delete from files where id in (select input_file from batches where id = copy);
    delete from batches where id = copy;
    delete from file_sums;
    insert into file_sums (tenant, files, bytes) select tenant, count(*), sum(bytes) from files group by tenant;
end $$
"""


@dataclass(frozen=True)
class Scene:
    """A batch, and what its holders know of it."""

    name: str
    batch: str
    kind: str
    claims: tuple[Claim, ...] = ()
    found: Batch | None = None
    tasks: tuple[int, ...] = ()
    """Leases of a validation or assembly, the present one last."""
    fold: FoldClaim | None = None
    """That is in an io worker's hand."""

    @property
    def claim(self) -> Claim:
        """The slice that runs."""
        return self.claims[0]

    @property
    def task(self) -> int:
        """The present lease of a validation or assembly."""
        return self.tasks[-1]


class Scenes:
    """The scenes of a database, each to be copied as often as one likes."""

    def __init__(self, world: World, look: psycopg.Connection[Any]) -> None:
        self.world = world
        self.look = look
        self.holder = world.worker()
        self.other = Holder(UUID(int=7), "gpu", MODEL, "host", 2)
        world.db.run(work.register, self.other, "starting", 8)
        for statement in _COPY.split("create function ")[1:]:
            world.sql("create function " + statement.strip().rstrip(";"))
        self.protos: dict[str, Scene] = {}
        self._copies = 0
        for whole, rest, inline in itertools.product((False, True), ("none", "ready", "queued"), (False, True)):
            if not inline or rest == "none":
                self._running(whole, rest, inline)
        for whole in (False, True):
            self._folding(whole)
        for late in (False, True):
            self._task("validating", late)
            self._task("finalizing", late)

    def _running(self, whole: bool, rest: str, inline: bool) -> None:
        """A slice of two lines runs, one line or all of it recorded; another is ready or queued, or none is left."""
        world = self.world
        batch = world.job(2) if inline else world.batch(2, *([2] if rest != "none" else []))
        claim = world.claimed(self.holder)
        world.flush(claim, 1, 1)
        if whole:
            world.flush(claim, 2, 2)
        if rest == "queued":
            world.sql("update slices set state = 'queued' where state = 'ready' and batch = :batch", batch=batch)
        name = f"running {'whole' if whole else 'half'}, {'inline' if inline else rest}"
        self._add(Scene(name, batch, "running", (claim,)))

    def _folding(self, whole: bool) -> None:
        """A fallback's first member answered one line of two, or both, and their fold is in a hand."""
        world = self.world
        batch = world.validating()
        world.db.run(world.begin_folds, *world.claim_batch(batch, "validate"), (2,), "fallback")
        claim = world.claimed(self.holder)
        assert len(remaining(claim)) == 2
        world.flush(claim, 1, 1)
        world.flush(claim, 2, 2, failed=not whole)
        world.db.run(as_holder.settle, claim)
        fold = world.db.run(as_folder.claim, world.keeper, batch, world.settings)
        assert fold is not None
        self._add(Scene(f"folding {'whole' if whole else 'half'}", batch, "folding", (fold.claim,), fold=fold))

    def _task(self, kind: str, again: bool) -> None:
        """A batch is being validated or assembled, for the first or (the first holder fell silent) the second time."""
        world, what = self.world, "validate" if kind == "validating" else "assemble"
        batch = world.validating() if kind == "validating" else world.batch(2)
        if kind == "finalizing":
            world.finish(world.claimed(self.holder))
        found, lease = world.claim_batch(batch, what)
        tasks = [lease]
        if again:
            world.reap(batch)
            tasks.append(world.claim_batch(batch, what)[1])
        self._add(Scene(f"{kind}{' again' if again else ''}", batch, kind, (), found, tuple(tasks)))

    def _add(self, scene: Scene) -> None:
        """Keep a scene to copy, hidden from claims and beats."""
        self.world.sql(
            "update slices set model = 'hidden' where batch = :batch and model is not null", batch=scene.batch
        )
        self.world.sql("update leases set holder = :nobody where batch = :batch", batch=scene.batch, nobody=UUID(int=0))
        self.protos[scene.name] = scene

    def copy(self, name: str, lapsed: bool = True, overdue: bool = True) -> Scene:
        """A new one like it; its leases may be past their time, and its deadline."""
        proto = self.protos[name]
        self._copies += 1
        shift, batch = self._copies * _SHIFT, f"{proto.batch}-{self._copies}"
        copy = f"""select copy_scene(%s, %s, %s, %s, %s, %s,
            clock_timestamp() {"-" if lapsed else "+"} interval '20 s',
            clock_timestamp() {"-" if overdue else "+"} interval '1 h')"""
        holders = (self.holder.id, self.world.keeper.id)
        self.look.execute(copy.encode(), [proto.batch, batch, shift, MODEL, *holders])
        claims = tuple(
            dataclasses.replace(claim, batch=batch, slice=claim.slice + shift, lease=claim.lease + shift)
            for claim in proto.claims
        )
        return dataclasses.replace(
            proto,
            batch=batch,
            claims=claims,
            fold=proto.fold and dataclasses.replace(proto.fold, claim=claims[0]),
            found=proto.found and dataclasses.replace(proto.found, id=batch),
            tasks=tuple(task + shift for task in proto.tasks),
        )

    def forget(self, scene: Scene) -> None:
        """Take a copy away."""
        self.look.execute("select forget_scene(%s)", [scene.batch])
