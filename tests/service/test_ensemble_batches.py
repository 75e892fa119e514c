"""Ensembles in batches: planning sends each line to its member, for good; all that comes after is the member's work."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from service.desk import Desk, request
from store.world import CHAT, World

from penstock.formats import input as lines
from penstock.formats import plan
from penstock.service.admin import models
from penstock.service.ensembles import ensembles
from penstock.service.ensembles.routing import TOO_SLOW

SUPPORT: dict[str, Any] = {
    "name": "support",
    "kind": "route",
    "members": [{"model": "tiny"}, {"model": "coder", "params": {"temperature": 0, "max_tokens": 9}}],
    "rules": [{"when": {"regex": "code"}, "use": "coder"}],
    "default": "tiny",
}


def line(n: int, text: str, model: str = "support", **more: Any) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return lines.write(f"q{n}", CHAT, body)


@pytest.fixture(autouse=True)
def support(world: World) -> None:
    world.db.run(models.add, "coder")
    world.db.run(ensembles.add, SUPPORT)


def counts(world: World, version: int | None = None) -> dict[str, tuple[int, int, int]]:
    view = world.db.run(ensembles.view, "support", version)
    return {model: (one.lines, one.completed, one.failed) for model, one in view.counts.items()}


def test_each_line_waits_for_its_members_workers_as_it_was_written(desk: Desk, world: World) -> None:
    sent = [line(n, "code" if n % 3 == 0 else "talk") for n in range(10)]
    batch = desk.validate(b"\n".join(sent))
    found = world.find(batch)
    assert (found.state, found.model, found.versions) == ("in_progress", "support", {"support": [1]})
    assert [(row.model, row.asked, row.member, row.lines) for row in world.slices(batch)] == [
        ("coder", "support", "coder", 4), ("tiny", "support", "tiny", 4), ("tiny", "support", "tiny", 2),
    ]  # fmt: skip
    assert dict(plan.unframe(desk.plan(batch))) == dict(enumerate(sent, 1)), "the params are the worker's to add"
    claim = world.claimed(world.worker("coder"))
    assert claim.chosen
    assert (claim.model, claim.asked, claim.chosen.model, claim.chosen.version) == ("coder", "support", "coder", 1)
    assert claim.chosen.params == {"temperature": 0, "max_tokens": 9}
    world.reap(batch)
    desk.answer(batch, "coder", failed=frozenset({4}))
    assert counts(world) == {"tiny": (6, 0, 0), "coder": (4, 3, 1)}
    desk.answer(batch)
    assert counts(world) == {"tiny": (6, 6, 0), "coder": (4, 3, 1)}


def test_a_planned_batch_keeps_its_version_and_the_next_batch_has_the_new_one(desk: Desk, world: World) -> None:
    before = desk.validate(line(1, "code"))
    turned = SUPPORT | {"rules": [{"when": {"regex": "talk"}, "use": "coder"}]}
    world.db.run(ensembles.add, turned)
    after = desk.validate(line(1, "code"))
    world.db.run(ensembles.remove, "support")
    assert [(row.member, row.model) for row in world.slices(before)] == [("coder", "coder")]
    assert [(row.member, row.model) for row in world.slices(after)] == [("tiny", "tiny")]
    assert (world.find(before).versions, world.find(after).versions) == ({"support": [1]}, {"support": [2]})
    claim = world.claimed(world.worker("coder"))
    assert claim.chosen
    assert (claim.batch, claim.chosen.version, claim.chosen.params["max_tokens"]) == (before, 1, 9)
    assert desk.errors(line(1, "code")) == [("model_not_found", "body.model", 1)], "it is removed"


def test_who_may_ask_the_ensemble_needs_no_right_to_its_members(desk: Desk, world: World) -> None:
    allowed = frozenset({"support"})
    batch = desk.validate(line(1, "code"), allowed_models=allowed)
    assert world.find(batch).state == "in_progress"
    assert desk.errors(line(1, "code", "coder"), allowed_models=allowed) == [("model_not_allowed", "body.model", 1)]
    assert desk.errors(line(1, "code"), allowed_models=frozenset({"coder"})) == [("model_not_allowed", "body.model", 1)]


def test_lines_of_members_models_and_defaults_stand_in_one_batch_each_in_slices_of_its_own(
    desk: Desk, world: World
) -> None:
    unnamed = msgspec.json.encode({"custom_id": "q4", "method": "POST", "url": CHAT,
                                   "body": {"messages": [{"role": "user", "content": "code"}]}})  # fmt: skip
    content = [line(1, "code", "coder"), line(2, "code"), line(3, "code"), unnamed]
    batch = desk.validate(b"\n".join(content), default_model="support")
    assert [(row.model, row.asked, row.member, row.lines) for row in world.slices(batch)] == [
        ("coder", None, None, 1), ("coder", "support", "coder", 3),
    ]  # fmt: skip
    assert json.loads(dict(plan.unframe(desk.plan(batch)))[4])["body"]["model"] == "support"


def test_estimates_and_equality_are_those_of_the_request_with_its_members_params(desk: Desk, world: World) -> None:
    same = [line(1, "code"), line(2, "code")]  # without a temperature each would be drawn for itself
    batch = desk.validate(b"\n".join(same))
    [cut] = world.slices(batch)
    alone = world.slices(desk.validate(line(1, "code")))[0].tokens
    assert cut.tokens == alone + 1, "the second line follows the first"
    assert world.slices(desk.validate(line(1, "code", max_tokens=16)))[0].tokens > alone, "its own limit counts"


def test_a_pattern_that_explodes_on_a_line_is_that_lines_error(desk: Desk, world: World) -> None:
    world.db.run(ensembles.add, SUPPORT | {"rules": [{"when": {"regex": "(a|aa)+$"}, "use": "coder"}]})
    content = b"\n".join([line(1, "talk"), line(2, "a" * 200 + "b"), line(3, "aaa")])
    batch = desk.validate(content, on_invalid="skip")
    rows = [(row.member, row.lines) for row in world.slices(batch) if row.model]
    assert rows == [("tiny", 1), ("coder", 1)]
    assert desk.errors(content) == [(TOO_SLOW, "body", 2)]


def test_what_params_make_of_a_line_is_checked_as_if_it_had_said_so(desk: Desk, world: World) -> None:
    assert desk.errors(request("a", "support", body={"model": "support", "stream": True})) == [
        ("invalid_request", "body.stream", 1)
    ]


def test_a_line_that_a_vote_can_not_answer_is_refused_for_what_it_asks(desk: Desk, world: World) -> None:
    members = [{"model": "tiny"}, {"model": "coder"}]
    world.db.run(ensembles.add, {"name": "panel", "kind": "vote", "members": members})
    for asked in ({"tools": [{"type": "function"}]}, {"functions": [{"name": "f"}]}):
        assert desk.errors(line(1, "code", "panel", **asked)) == [("ensemble_without_tools", "body", 1)]
    world.db.run(ensembles.add, {"name": "spare", "kind": "fallback", "members": members})
    batch = desk.validate(line(1, "code", "spare", tools=[{"type": "function"}]))
    assert world.find(batch).state == "in_progress"
