"""Packs of embeddings: a killed worker, a killed engine and an input that kills engines cost no other line anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e.live import EMBEDDINGS, embed, jsonl
from faults.house import House
from faults.load import check
from openai.types import Batch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LINES = 300


@pytest.fixture(scope="module")
def house(build: Callable[..., House], journal: Path) -> House:
    """One worker with short leases; several slices are in hand at once."""
    return build(
        engine_arguments=["--latency-ms=200", f"--journal={journal}"],
        slice_lines="100",
        flush_seconds="0.2",
        lease_seconds="3",
        beat_seconds="1",
        tick_seconds="1",
        worker_gone_seconds="4",
    )


@pytest.fixture(autouse=True)
def unbroken(house: House) -> Iterator[None]:
    """Whatever died, the database and the blobs are as they must be."""
    yield
    check(house)


def text(name: str, line: int, poison: dict[int, str]) -> str:
    return f"text {line} of {name}. " + poison.get(line, "")


def submit(house: House, name: str, poison: dict[int, str]) -> Batch:
    lines = [embed(f"{name}-{n}", text(name, n, poison)) for n in range(LINES)]
    file = house.client.sdk.files.create(file=("packs.jsonl", jsonl(lines)), purpose="batch")
    return house.client.sdk.batches.create(input_file_id=file.id, endpoint=EMBEDDINGS, completion_window="24h")


def asked(journal: Path, name: str) -> Counter[str]:
    """How often each line came to an engine, by the beginning of its text."""
    entries = (entry.split("\t", 2)[2] for entry in journal.read_text().splitlines())
    return Counter(found.partition(".")[0] for found in entries if f" of {name}." in found)


def has_each_answer_once(house: House, batch: Batch, name: str, poison: dict[int, str]) -> None:
    """Every line that is none of these is answered, in order, with its own vector and its own tokens."""
    ended = house.client.ended(batch.id, 120)
    output, errors = house.client.file(ended.output_file_id), house.client.file(ended.error_file_id)
    healthy = [n for n in range(LINES) if n not in poison]
    assert [line["custom_id"] for line in output] == [f"{name}-{n}" for n in healthy], house.tell()
    assert [line["custom_id"] for line in errors] == [f"{name}-{n}" for n in sorted(poison)]
    bodies = [line["response"]["body"] for line in output]
    tokens = [max(1, len(text(name, n, poison)) // 4) for n in healthy]
    assert [body["usage"]["prompt_tokens"] for body in bodies] == tokens
    assert len({json.dumps(body["data"][0]["embedding"]) for body in bodies}) == len(healthy)
    assert {body["data"][0]["index"] for body in bodies} == {0}
    packs = {line["response"]["request_id"].partition("-")[0] for line in output}
    assert len(packs) < len(healthy) * 2 / 3, "they went in packs, but for suspects"
    assert ended.usage
    assert ended.usage.input_tokens == sum(tokens)


@pytest.mark.parametrize("point", ["slice.flushing=kill", "segment.written=kill@2", "segment.recorded=kill@2"])
def test_a_worker_that_is_killed_with_packs_in_hand_loses_and_doubles_nothing(
    house: House, journal: Path, point: str
) -> None:
    name = point.partition("=")[0].replace(".", "-")
    house.kill("gpu-1")
    house.start("gpu-1", failpoints=point)
    batch = submit(house, name, {})
    assert house.wait("gpu-1", 60) == -9
    house.start("gpu-1", failpoints="")
    has_each_answer_once(house, batch, name, {})
    times = asked(journal, name)
    assert len(times) == LINES
    assert max(times.values()) <= 2


def test_an_input_that_kills_engines_ends_alone_and_four_engines_at_most_die_of_it(house: House, journal: Path) -> None:
    poison = {150: "[[die]]"}
    batch = submit(house, "poison", poison)
    has_each_answer_once(house, batch, "poison", poison)
    [line] = house.client.file(house.client.sdk.batches.retrieve(batch.id).error_file_id)
    assert line["error"]["code"] == "engine_crash"
    assert asked(journal, "poison")["text 150 of poison"] <= 4


def test_refused_inputs_are_told_so_and_a_cancel_keeps_what_is_answered(house: House, journal: Path) -> None:
    poison = dict.fromkeys((0, 3, 77, 140, 141, 142, 200, 231, 260, 299), "[[status 400]]")
    batch = submit(house, "refused", poison)
    has_each_answer_once(house, batch, "refused", poison)
    cancelled = submit(house, "cancelled", dict.fromkeys(range(100, LINES), "[[sleep 1000]]"))
    house.until(lambda: house.ask("select sum(completed) from slices where batch = %s", cancelled.id), "some answers")
    house.client.sdk.batches.cancel(cancelled.id)
    ended = house.client.ended(cancelled.id, 60)
    output, errors = house.client.file(ended.output_file_id), house.client.file(ended.error_file_id)
    assert ended.status == "cancelled"
    assert len(output) + len(errors) == LINES
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
