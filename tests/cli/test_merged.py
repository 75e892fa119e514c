"""`results --merged`: every line of an ended batch once, answers and errors together, in the order of its input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cli.conftest import Penstock
from service.desk import Desk, request
from service.test_retry import FAILED, again, validated
from store.world import World

from penstock.domain.work.terms import OnInvalid
from penstock.service.admin import keys
from penstock.settings import Settings

LINES = b"\n".join(
    [request("q1"), b"", request("q2"), b"{no line", request("q4"), request("q1"), b"", b"", request("q5")]
)
"""Lines 4 and 6 are skipped: one has no custom_id, one has that of line 1. Lines 2, 7 and 8 are blank."""


@pytest.fixture
def desk(settings: Settings, penstock: Penstock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Slices of two lines, so that answers come in another order than lines; the commands have its tenant's key."""
    world = World(settings.database_url, settings.model_copy(update={"slice_lines": 2}))
    monkeypatch.setenv("PENSTOCK_API_KEY", world.db.run(keys.create, "acme", "test")[1])
    yield Desk(world)
    world.close()


def ended(desk: Desk, **how: Any) -> str:
    """A batch of these lines that was answered so."""
    batch = desk.validate(LINES, on_invalid=OnInvalid.SKIP)
    desk.answer(batch, **how)
    desk.assemble(batch)
    return batch


def told(output: str) -> list[tuple[Any, Any]]:
    """The custom_id of each line, and its status, or its error's code."""
    found = map(json.loads, output.splitlines())
    return [(one["custom_id"], (one["response"] or {}).get("status_code") or one["error"]["code"]) for one in found]


def test_answers_errors_and_skipped_lines_are_joined_in_input_order(penstock: Penstock, desk: Desk) -> None:
    batch = ended(desk, failed=frozenset({3, 9}))
    apart = [penstock("batches", "results", batch, "--output", "out", "--errors", "err").exit_code]
    assert apart == [0]
    whole = penstock("batches", "results", batch, "--merged")
    assert (whole.exit_code, whole.stderr) == (0, "")
    assert told(whole.stdout) == [
        ("q1", 200),
        ("q2", 400),
        (None, "invalid_json_line"),
        ("q4", 200),
        ("q1", "duplicate_custom_id"),
        ("q5", 400),
    ]
    with open("out") as out, open("err") as err:
        assert sorted(whole.stdout.splitlines()) == sorted([*out.read().splitlines(), *err.read().splitlines()])


def test_of_a_retry_the_lines_of_its_parents_are_joined_in_the_order_of_the_first(
    penstock: Penstock, desk: Desk
) -> None:
    batch = ended(desk, failed=frozenset({1, 3, 9}))
    for failed in ({2, 3}, {1}):
        child = again(desk.world, batch, FAILED)
        validated(desk, child)
        desk.answer(child, failed=frozenset(failed))
        desk.assemble(child)
        batch = child
    whole = penstock("batches", "results", batch, "--merged", "--output", "all.jsonl")
    assert (whole.exit_code, whole.output) == (0, "")
    with open("all.jsonl") as found:
        assert told(found.read()) == [
            ("q1", 200),
            ("q2", 400),
            (None, "invalid_json_line"),
            ("q4", 200),
            ("q1", "duplicate_custom_id"),
            ("q5", 200),
        ]


def test_a_retry_that_was_never_validated_has_no_merged_results(penstock: Penstock, desk: Desk) -> None:
    child = again(desk.world, ended(desk, failed=frozenset({1})), FAILED)
    desk.world.cancel(child)
    refused = penstock("batches", "results", child, "--merged")
    assert (refused.exit_code, refused.stderr.endswith("it ended before it was validated.\n")) == (1, True)
