"""Classifiers in batches: the first wave asks one for a label, and its fold asks the member that the rules choose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from service.desk import Desk
from service.fold_desk import FoldDesk
from store.world import CHAT, World

from penstock.domain.fleet.model import ModelFacts
from penstock.service.admin import models
from penstock.service.ensembles import ensembles
from penstock.service.ensembles.routing import TOO_SLOW
from penstock.service.lifecycle import folds, measure, work
from penstock.store.fleet import models as fleet_models

DESK: dict[str, Any] = {
    "name": "desk",
    "kind": "route",
    "members": [{"model": "a"}, {"model": "b"}],
    "classifier": {"model": "c", "labels": ["billing", "code"]},
    "rules": [{"when": {"tools": True}, "use": "a"}, {"when": {"label": "code"}, "use": "b"}],
    "default": "a",
}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


@pytest.fixture
def folded(desk: Desk, world: World) -> Iterator[FoldDesk]:
    for member in "abc":
        world.db.run(models.add, member)
    yield FoldDesk(desk)
    world.check()


def rows(world: World, batch: str) -> list[tuple[str | None, int | None, str, int]]:
    return [(row.model, row.place, row.state, row.lines) for row in world.slices(batch)]


def test_a_batch_asks_the_classifier_first_and_each_member_just_the_lines_of_its_labels(
    folded: FoldDesk, world: World
) -> None:
    world.db.run(ensembles.add, DESK)
    batch = folded.batch("desk")
    assert rows(world, batch) == [
        (None, None, "waiting", 4), ("a", 0, "waiting", 4), ("b", 1, "waiting", 4), ("c", 2, "ready", 4),
    ]  # fmt: skip
    assert folded.says("c", lambda n: (500, "well", "code", "billing")[n - 1]) == [1, 2, 3, 4]
    assert world.find(batch).completed == 0, "what a classifier says is no answer"
    assert folded.fold(batch) == 4
    assert folded.says("b", lambda n: f"b{n}") == [3]
    assert folded.says("a", lambda n: 500 if n == 4 else f"a{n}") == [1, 2, 4]
    assert folded.fold(batch) == 0
    assert folded.results(batch) == {
        "q1": ("a1", "a"), "q2": ("a2", "a"), "q3": ("b3", "b"), "q4": "ensemble_quorum",
    }  # fmt: skip
    found = world.find(batch)
    assert (found.completed, found.failed, found.versions) == (3, 1, {"desk": [1]})
    assert found.usage.input_tokens == (3 + 3) * 3, "the classifier's tokens and the members'"
    counts = world.db.run(ensembles.view, "desk").counts
    assert [(name, one.lines, one.failed) for name, one in counts.items()] == [
        ("a", 3, 1), ("b", 1, 0), ("classifier", 4, 1),
    ]  # fmt: skip


def test_lines_that_need_no_label_ask_no_classifier(folded: FoldDesk, world: World) -> None:
    world.db.run(ensembles.add, DESK)
    batch = folded.batch("desk", 3, tools=TOOLS)
    assert rows(world, batch) == [("a", 0, "ready", 3)]
    claim = folded.claim("a")
    assert claim
    assert claim.chosen
    assert claim.chosen.trace("answered", 1, 0.1)["winner"] == "a", "there is no fold that says it"


def test_without_a_label_under_on_error_fail_a_line_has_failed(folded: FoldDesk, world: World) -> None:
    world.db.run(ensembles.add, DESK | {"on_error": "fail"})
    batch = folded.batch("desk", 3)
    folded.says("c", lambda n: (500, "dunno", "billing")[n - 1])
    assert folded.fold(batch) == 1
    assert folded.says("a", str) == [3]
    folded.fold(batch)
    assert folded.results(batch) == {"q1": "ensemble_quorum", "q2": "ensemble_quorum", "q3": ("3", "a")}


def test_a_pattern_that_is_too_slow_behind_a_label_is_its_lines_error(folded: FoldDesk, world: World) -> None:
    slow = [{"when": {"label": "code"}, "use": "b"}, {"when": {"regex": "(a|aa)+$"}, "use": "b"}]
    world.db.run(ensembles.add, DESK | {"rules": slow})
    sent = [{"role": "user", "content": "a" * 99 + "b"}]
    batch = folded.batch("desk", 2, messages=sent)
    folded.says("c", lambda n: "code" if n == 1 else "billing")
    assert folded.fold(batch) == 1
    assert folded.says("b", str) == [1]
    folded.fold(batch)
    assert folded.results(batch) == {"q1": ("1", "b"), "q2": TOO_SLOW}


def test_a_classifier_without_a_worker_is_passed_over_and_a_member_is_waited_for(
    folded: FoldDesk, world: World
) -> None:
    world.db.run(ensembles.add, DESK | {"timeout_seconds": 0.001})
    batch = folded.batch("desk", 2)
    gone = world.settings.model_copy(update={"worker_gone_seconds": 0.0})
    absent = world.db.run(folds.absent, gone)
    assert [(one.batch, one.model) for one in absent] == [(batch, "c")]
    assert [world.db.run(folds.pass_over, one) for one in absent] == [1]
    assert folded.fold(batch) == 2
    assert world.db.run(folds.absent, gone) == [], "nobody answers in the place of the member"
    assert folded.says("a", str) == [1, 2]
    folded.fold(batch)
    assert folded.results(batch) == {"q1": ("1", "a"), "q2": ("2", "a")}


def test_a_classifier_that_embeds_is_asked_first_and_its_vectors_say_the_label(folded: FoldDesk, world: World) -> None:
    by_vectors = {"model": "c", "by": "embeddings", "labels": ["billing", "code"], "examples": {"code": ["x", "y"]}}
    world.db.run(ensembles.add, DESK | {"classifier": by_vectors})
    batch = folded.batch("desk", 4)
    claim = folded.claim("c")
    assert claim
    assert claim.chosen
    assert (claim.chosen.endpoint(CHAT), claim.chosen.params) == ("/v1/embeddings", {"encoding_format": "base64"})
    world.db.run(work.release, claim.lease)
    answers = (nearness(billing=0.2, code=0.3), nearness(billing=0.3, code=0.2), 404, nearness())
    assert folded.says("c", lambda n: answers[n - 1]) == [1, 2, 3, 4]
    assert folded.fold(batch) == 4
    assert folded.says("b", lambda n: f"b{n}") == [1]
    assert folded.says("a", lambda n: f"a{n}") == [2, 3, 4]
    folded.fold(batch)
    assert folded.results(batch) == {
        "q1": ("b1", "b"), "q2": ("a2", "a"), "q3": ("a3", "a"), "q4": ("a4", "a"),
    }  # fmt: skip
    assert world.find(batch).usage.output_tokens == 4 * 2, "vectors are none"


def nearness(**similarities: float) -> bytes:
    """A classifier's answer as a worker keeps it."""
    usage = {"prompt_tokens": 300, "total_tokens": 300}
    return json.dumps({"object": "list", "similarities": similarities, "usage": usage}).encode()


def test_what_a_classifier_is_asked_teaches_nothing_of_its_models_lines(folded: FoldDesk, world: World) -> None:
    world.db.run(ensembles.add, DESK)
    folded.batch("desk", 3)
    folded.says("c", lambda _: "billing")
    assert world.db.run(measure.measure) == 1
    assert facts(world) == ModelFacts()
    folded.batch("c", 3)
    folded.says("c", str)
    world.sql("update models set measured_at = measured_at - interval '15 s'")
    assert world.db.run(measure.measure) == 1
    assert facts(world).output_tokens == 2


def facts(world: World) -> ModelFacts:
    return world.db.run(lambda tx: fleet_models.facts(tx.conn, ["c"]))["c"]
