"""Batches on live workers are paused, moved before others, and end when they were expected to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from e2e.live import chat, until
from faults.house import House

pytestmark = pytest.mark.timeout(300)

SLICE_LINES = 10


@pytest.fixture(scope="module")
def house(shared_database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A platform with small slices."""
    folder = tmp_path_factory.mktemp("steering")
    with House(shared_database_url, valkey_url, folder, slice_lines=str(SLICE_LINES)) as house:
        yield house


def lines(count: int, milliseconds: int = 300) -> list[dict[str, Any]]:
    """Requests whose answers take a while."""
    return [chat(f"line-{n}", f"{n} [[sleep {milliseconds}]]", max_tokens=16) for n in range(count)]


def look(house: House, id: str) -> dict[str, Any]:
    """The batch as the API shows it, with the fields that are ours."""
    return house.client.http.get(f"/batches/{id}").json()


def steer(house: House, method: str, path: str, **body: Any) -> dict[str, Any]:
    """Pause, resume or change it."""
    answer = house.client.http.request(method, f"/batches/{path}", json=body or None)
    assert answer.status_code == 200, answer.text
    return answer.json()


def begun(house: House, batch: str) -> int:
    """How many of its slices were ever begun."""
    return house.ask("select count(*) from trail where batch = %s and becomes = 'running'", batch)


def running(house: House, batch: str) -> int:
    return house.ask("select count(*) from slices where batch = %s and state = 'running'", batch)


def completed(house: House, batch: str) -> int:
    return look(house, batch)["request_counts"]["completed"]


def test_a_paused_batch_starts_no_slice_until_it_is_resumed(house: House) -> None:
    batch = house.client.submit(lines(400)).id
    until(lambda: completed(house, batch) >= 2 * SLICE_LINES, "some answers")
    assert steer(house, "POST", f"{batch}/pause")["paused"]
    slices = begun(house, batch)
    until(lambda: not running(house, batch), "the end of what runs")
    answered = completed(house, batch)
    assert answered == slices * SLICE_LINES < 400
    # Meanwhile the workers are there for others.
    assert house.client.ended(house.client.submit(lines(40, 10)).id).status == "completed"
    assert (begun(house, batch), completed(house, batch)) == (slices, answered)
    assert look(house, batch)["expected"]["reason"] == "paused"
    steer(house, "POST", f"{batch}/resume")
    ended = house.client.ended(batch)
    assert ended.status == "completed"
    assert ended.request_counts
    assert ended.request_counts.completed == 400
    assert begun(house, batch) == 400 // SLICE_LINES


def test_a_batch_that_is_given_a_more_urgent_lane_goes_before_another(house: House) -> None:
    first = house.client.submit(lines(800)).id  # many times what the workers' hands and places hold at once
    until(lambda: completed(house, first) >= SLICE_LINES, "the first one's begin")
    other = house.client.submit(lines(60), lane="flex").id
    until(lambda: look(house, other)["status"] == "in_progress", "its validation")
    assert begun(house, other) == 0
    steer(house, "PATCH", other, lane="priority")
    assert house.client.ended(other).status == "completed"
    assert look(house, first)["status"] == "in_progress"
    assert house.client.ended(first).status == "completed"


def test_a_batch_ends_when_it_was_expected_to(house: House) -> None:
    house.client.ended(house.client.submit(lines(150)).id)  # the workers' speed is known now
    batch = house.client.submit(lines(300)).id
    until(lambda: (look(house, batch)["expected"] or {}).get("completion_at"), "an expectation")
    seen = look(house, batch)
    expected = seen["expected"]
    assert expected["meets_deadline"] is True
    assert expected["earliest_at"] <= expected["completion_at"] <= expected["latest_at"]
    house.client.ended(batch)
    last_answer_at = look(house, batch)["finalizing_at"]
    assert expected["earliest_at"] - 1 <= last_answer_at <= expected["latest_at"] + 1, (seen, last_answer_at)
    assert look(house, batch)["expected"] is None
    measured = "select bytes_per_token > 0 and output_tokens > 0 and tokens_scale > 0 from models where name = 'tiny'"
    until(lambda: house.ask(measured), "what the keeper measured")


def test_a_deadline_that_can_not_be_met_is_said(house: House) -> None:
    batch = house.client.submit(lines(20_000)).id  # more than a minute and a half
    steer(house, "PATCH", batch, completion_window="1m")
    until(lambda: (look(house, batch)["expected"] or {}).get("meets_deadline") is False, "that it is late")
    steer(house, "POST", f"{batch}/cancel")
    assert house.client.ended(batch).status == "cancelled"
