"""Meetings: two moves in one scene, their statements interleaved; what each was told must be what happened.

A move is one transaction of the service's own functions, as a holder, the keeper or a tenant begins it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any

import psycopg
from sqlalchemy import text
from store import as_folder, as_holder, invariants
from store.scenes import Scene, Scenes
from store.steps import Stage
from store.world import MODEL, World, records, remaining

from penstock.domain.api_errors import Conflict, LeaseLost
from penstock.domain.work.batch import BatchState, LineError
from penstock.domain.work.fold_claim import FoldClaim
from penstock.domain.work.lane import LANES, Lane
from penstock.domain.work.slack import Outlook
from penstock.service.control import cancel, steer
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import dispatch, folds, work
from penstock.service.planning import validate
from penstock.service.planning.scan import Scan
from penstock.service.results import assemble
from penstock.store.batches import batches
from penstock.store.work.folds import Absence

Move = Callable[[Transaction, World, Scenes, Scene], Any]

ANYWHERE: dict[str, Move] = {
    "cancel": lambda tx, w, a, s: cancel.cancel(tx, "acme", kind(s), s.batch),
    "pause": lambda tx, w, a, s: steer.pause(tx, "acme", kind(s), s.batch),
    "resume": lambda tx, w, a, s: steer.resume(tx, "acme", kind(s), s.batch, w.settings),
    "move": lambda tx, w, a, s: steer.change(tx, "acme", kind(s), s.batch, w.settings, lane=Lane.FLEX),
    "expire": lambda tx, w, a, s: cancel.expire(tx, s.batch),
    "reap": lambda tx, w, a, s: dispatch.reap(tx, s.batch),
    "move_on": lambda tx, w, a, s: dispatch.move_on(tx, s.batch),
}
SLICE: dict[str, Move] = {
    "flush": lambda tx, w, a, s: as_holder.flush(tx, s.claim, 7, records(s.claim, 2), None),
    "flush again": lambda tx, w, a, s: as_holder.flush(tx, s.claim, 1, records(s.claim, 1), None),
    "settle": lambda tx, w, a, s: as_holder.settle(tx, s.claim),
    "release": lambda tx, w, a, s: work.release(tx, s.claim.lease),
    "trial": lambda tx, w, a, s: work.note_trial(tx, s.claim, [2]),
    "engine dies": lambda tx, w, a, s: as_holder.crash(tx, s.claim, [2]),
    "unreadable": lambda tx, w, a, s: work.unreadable(tx, s.claim),
    "beat": lambda tx, w, a, s: work.beat(tx, a.holder, [s.claim.lease], w.settings),
    "beat without": lambda tx, w, a, s: work.beat(tx, a.holder, [], w.settings),
    "record": lambda tx, w, a, s: work.record(tx, [work.SliceAnswers(s.claim, 7, records(s.claim, 2))], [s.claim]),
    "record again": lambda tx, w, a, s: work.record(
        tx, [work.SliceAnswers(s.claim, 1, records(s.claim, 1))], [s.claim]
    ),
    "give back all": lambda tx, w, a, s: work.give_back(tx, [(s.claim, [2])]),
    "claim": lambda tx, w, a, s: work.claim(tx, a.other, list(LANES), uuid.uuid4(), w.settings, None, 8),
    "feed": lambda tx, w, a, s: dispatch.feed(tx, MODEL, w.settings),
    "promote": lambda tx, w, a, s: dispatch.put(tx, outlook(s.batch), True, w.settings),
}
TASK: dict[str, Move] = {
    "give up": lambda tx, w, a, s: work.give_up(tx, s.batch, s.task),
    "release": lambda tx, w, a, s: work.release(tx, s.task),
    "put off": lambda tx, w, a, s: work.put_off(tx, s.task),
    "beat": lambda tx, w, a, s: work.beat(tx, w.keeper, [s.task], w.settings),
}
VALIDATION: dict[str, Move] = {
    "begin": lambda tx, w, a, s: w.begin(tx, s.found, s.task, (1, 1)),
    "begin late": lambda tx, w, a, s: w.begin(tx, s.found, s.tasks[0], (1, 1)),
    "refuse": lambda tx, w, a, s: validate.refuse(tx, s.batch, s.task, REFUSED),
    "take": lambda tx, w, a, s: work.claim_batch(tx, w.keeper, s.batch, "validate", uuid.uuid4(), w.settings),
}
ASSEMBLY: dict[str, Move] = {
    "commit": lambda tx, w, a, s: assemble.commit(tx, s.found, s.task, BatchState.COMPLETED, None, None),
    "commit late": lambda tx, w, a, s: assemble.commit(tx, s.found, s.tasks[0], BatchState.COMPLETED, None, None),
    "take": lambda tx, w, a, s: work.claim_batch(tx, w.keeper, s.batch, "assemble", uuid.uuid4(), w.settings),
}
FOLD: dict[str, Move] = {
    "ask": lambda tx, w, a, s: folds.ask(tx, the_fold(s), {1: [2]}, {}, w.settings),
    "fold": lambda tx, w, a, s: as_folder.fold(tx, the_fold(s), w.settings),
    "record fold": lambda tx, w, a, s: as_folder.keep(tx, the_fold(s), [as_folder.record(s.batch, 1)], 7),
    "settle fold": lambda tx, w, a, s: as_holder.settle(tx, s.claim),
    "release": lambda tx, w, a, s: work.release(tx, s.claim.lease),
    "unreadable": lambda tx, w, a, s: work.unreadable(tx, s.claim),
    "beat": lambda tx, w, a, s: work.beat(tx, w.keeper, [s.claim.lease], w.settings),
    "beat without": lambda tx, w, a, s: work.beat(tx, w.keeper, [], w.settings),
    "take fold": lambda tx, w, a, s: as_folder.claim(tx, w.keeper, s.batch, w.settings),
    "pass over": lambda tx, w, a, s: folds.pass_over(tx, Absence(s.batch, MODEL, the_fold(s).definition, 1_000.0)),
    "claim": lambda tx, w, a, s: work.claim(tx, a.other, list(LANES), uuid.uuid4(), w.settings, None, 8),
    "feed": lambda tx, w, a, s: dispatch.feed(tx, MODEL, w.settings),
    "promote": lambda tx, w, a, s: dispatch.put(tx, outlook(s.batch), True, w.settings),
}
MOVES: dict[str, dict[str, Move]] = {
    "folding": ANYWHERE | FOLD,
    "running": ANYWHERE | SLICE,
    "validating": ANYWHERE | TASK | VALIDATION,
    "finalizing": ANYWHERE | TASK | ASSEMBLY,
}
REFUSED = Scan(errors=[LineError("invalid_request", "no", None, 1)], error_count=1)


def the_fold(scene: Scene) -> FoldClaim:
    """The one that is in a hand."""
    assert scene.fold is not None
    return scene.fold


def kind(scene: Scene) -> str:
    """What a tenant calls it."""
    return "job" if "inline" in scene.name else "batch"


def outlook(batch: str) -> Outlook:
    """Something that the keeper found about a batch's time, rightly or not any more."""
    return Outlook(batch, MODEL, False, True, 30.0, 100.0, 20.0)


def meet(
    world: World,
    scenes: Scenes,
    stage: Stage,
    scene: Scene,
    pair: tuple[str, str],
    lapsed: bool,
    schedule: Iterable[int],
) -> str:
    """Let two moves meet in a scene, and bring its batch to its end; how that went."""
    look, moves, told = stage.look, MOVES[scene.kind], ""
    before = lines(look, scene.batch)
    uses = [lambda tx, move=moves[which]: move(tx, world, scenes, scene) for which in pair]
    try:
        results, told = stage.play(*uses, schedule)
        invariants.check_quickly(look)
        agree(scene, list(zip(pair, results, strict=True)), lapsed, look)
        state = stage.afterwards.run(drain, world, scenes, scene)
        invariants.check_quickly(look)
        after = lines(look, scene.batch)
        assert after[: len(before)] == before, "what was recorded is lost"
        assert len({line for segment in after for line in segment}) == sum(map(len, after))
    except BaseException as error:
        error.add_note(f"{pair[0]!r} and {pair[1]!r}, {scene.name}, {lapsed=}: {told}")
        raise
    scenes.forget(scene)
    return f"{pair[0]} × {pair[1]}: {told} → {state}"


def agree(scene: Scene, done: list[tuple[str, Any]], lapsed: bool, look: psycopg.Connection) -> None:
    """What the two were told is what happened."""
    for _, result in done:
        if isinstance(result, BaseException) and not isinstance(result, LeaseLost | Conflict):
            raise result
    well = [(name, result) for name, result in done if not isinstance(result, BaseException)]
    state, finish_as, total = look.execute(
        "select state, finish_as, total from batches where id = %s", [scene.batch]
    ).fetchone() or ("", "", 0)
    closers = {name for name, result in well if name in ("cancel", "expire") and result}
    assert len(closers) <= 1, "closed twice"
    for name in closers:
        assert finish_as == {"cancel": "cancelled", "expire": "expired"}[name]
    last = [name for name, _ in well if name in LAST]
    assert len(last) <= 1, "ended twice"
    if len(scene.tasks) > 1:
        assert all(isinstance(result, LeaseLost) for name, result in done if name.endswith("late")), "a zombie wrote"
    if scene.kind == "validating":
        assert total == (2 if {"begin", "begin late"} & set(last) else 0)
    reaped = sum(result for name, result in well if name == "reap")
    kept = any(name == "beat" and not result.lost for name, result in well)
    assert reaped <= lapsed
    assert not (reaped and kept), "reaped, and its holder was told that it is kept"
    recorded = [line for segment in lines(look, scene.batch) for line in segment]
    for name, result in done:
        if name == "flush":
            assert (2 in recorded) == (result is None)
        elif name == "record":
            assert (2 in recorded) or result == {scene.claim.lease}
        elif name == "settle" and result is None:
            (settled,) = look.execute("select state from slices where id = %s", [scene.claim.slice]).fetchone() or ("",)
            assert settled == "done"
    charged = look.execute("select max(deaths) from suspects where slice = any(%s)", [[c.slice for c in scene.claims]])
    if "trial" not in dict(done):
        assert charged.fetchone() in [(None,), (1,)], "one death is charged twice"
    if scene.kind == "folding":
        asked = look.execute("select count(*) from trail where batch = %s and was = 'waiting' and becomes = 'queued'",
                             [scene.batch], prepare=True).fetchone()  # fmt: skip
        assert asked in [(0,), (1,)], "its wave is cut twice"
        assert not (reaped and any(name in ("ask", "fold", "settle fold") for name, _ in well)), "a zombie folded"
    claims = [claim for name, result in well if name == "claim" for claim in result]
    assert len({claim.slice for claim in claims}) == len(claims), "claimed twice"
    assert state


LAST = ("begin", "begin late", "refuse", "give up", "commit", "commit late")


def lines(look: psycopg.Connection, batch: str) -> list[list[int]]:
    """The lines of each of a batch's segments, in the order of their acceptance; of an ensemble's those folded."""
    query = "select g.lines from segments g join slices s on s.id = g.slice where s.batch = %s and s.fold is null"
    return [row[0] for row in look.execute(f"{query} order by g.id".encode(), [batch], prepare=True)]


def drain(tx: Transaction, world: World, scenes: Scenes, scene: Scene) -> str:
    """What holders and keeper do until the batch has ended, in one transaction, since that costs least."""
    for _ in range(9):
        tx.conn.execute(LAPSE, {"batch": scene.batch})
        dispatch.reap(tx, scene.batch)
        found = batches.find(tx.conn, scene.batch)
        assert found is not None
        if found.ended:
            assert found.completed + found.failed == found.total
            return found.state
        if found.state is BatchState.PAUSED and found.finish_as is None:
            steer.resume(tx, "acme", found.kind, scene.batch, world.settings)
        if found.state in (BatchState.VALIDATING, BatchState.FINALIZING):
            kind = "validate" if found.state is BatchState.VALIDATING else "assemble"
            taken = work.claim_batch(tx, world.keeper, scene.batch, kind, uuid.uuid4(), world.settings)
            assert taken is not None
            if kind == "validate":
                world.begin(tx, taken[0], taken[1].lease, (2,))
            else:
                assemble.commit(tx, *(taken[0], taken[1].lease), found.finish_as or BatchState.COMPLETED, None, None)
        dispatch.feed(tx, MODEL, world.settings)
        while claims := work.claim(tx, scenes.other, list(LANES), uuid.uuid4(), world.settings):
            [claim] = claims
            if left := remaining(claim):
                as_holder.flush(tx, claim, 1, records(claim, *left), None)
            as_holder.settle(tx, claim)
        while one := as_folder.claim(tx, world.keeper, scene.batch, world.settings):
            as_folder.fold(tx, one, world.settings)
    raise AssertionError("it does not end")


LAPSE = text("update leases set expires_at = now() - interval '1 s' where batch = :batch and closed_at is null")
