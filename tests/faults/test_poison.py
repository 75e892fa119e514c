"""Poison lines: one that kills or hangs the engine ends as `engine_crash` after four engines at most, and alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e.live import chat, said
from faults.house import House

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def house(shared_database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One worker, so that slices share an engine; slices of 100 lines, so that several are in hand at once."""
    folder = tmp_path_factory.mktemp("poison")
    arguments = ["--latency-ms=20", "--jitter=0.5", f"--journal={folder / 'journal'}"]
    with House(
        shared_database_url,
        valkey_url,
        folder,
        engine_arguments=arguments,
        slice_lines="100",
        flush_seconds="0.2",
        engine_stuck_seconds="2",
    ) as house:
        yield house


def asked(house: House, text: str) -> int:
    """How often the engine was asked a line, by the journal that outlives it."""
    return sum(text in line for line in (house.folder / "journal").read_text().splitlines())


def engine_starts(house: House) -> int:
    log = next((house.logs / "gpu-1").glob("engine-*.log"))
    return log.read_text().count("--- start ")


def convicted(house: House) -> int:
    return house.ask("select value from counts where name = 'line_crashed'") or 0


def check(house: House, name: str, count: int, poison: dict[int, str]) -> None:
    """Run so many lines with poison among them: everybody else is answered, and each poison line ends as crashed."""
    starts, before = engine_starts(house), convicted(house)
    lines = [chat(f"line-{n}", f"{name} {n}, please {poison.get(n, '')}".strip()) for n in range(count)]
    batch = house.client.ended(house.client.submit(lines).id, 180)
    assert batch.status == "completed", house.tell()
    output, errors = house.client.file(batch.output_file_id), house.client.file(batch.error_file_id)
    assert [line["custom_id"] for line in output] == [f"line-{n}" for n in range(count) if n not in poison]
    assert [said(line) for line in output] == [f"{name} {n}, please" for n in range(count) if n not in poison]
    assert [line["custom_id"] for line in errors] == [f"line-{n}" for n in sorted(poison)]
    assert {line["error"]["code"] for line in errors} == {"engine_crash"}
    assert batch.request_counts
    assert (batch.request_counts.completed, batch.request_counts.failed) == (count - len(poison), len(poison))
    for n in poison:
        assert asked(house, f"{name} {n},") <= 4
    assert engine_starts(house) - starts <= 4 * len(poison)
    assert convicted(house) - before == len(poison)
    assert house.ask("select sum(crashes) from slices where batch = %s", batch.id) == 0


def test_a_poison_line_among_500_costs_four_engines_and_only_itself(house: House) -> None:
    check(house, "one", 500, {250: "[[die]]"})


@pytest.mark.slow
def test_two_poison_lines_in_two_slices_end_each_by_itself(house: House) -> None:
    check(house, "two", 500, {120: "[[die]]", 330: "[[die]]"})


@pytest.mark.slow
def test_a_line_that_hangs_the_engine_is_as_bad_as_one_that_kills_it(house: House) -> None:
    check(house, "hang", 60, {17: "[[hang]]"})


@pytest.mark.slow
def test_a_job_of_one_poison_line_ends_too(house: House) -> None:
    starts = engine_starts(house)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "[[die]]"}]}
    job = house.client.http.post(
        "/jobs", json={"endpoint": "/v1/chat/completions", "requests": [{"body": body}]}
    ).json()
    ended = house.until(
        lambda: (seen := house.client.http.get(f"/jobs/{job['id']}?wait=20").json())["status"] == "completed" and seen,
        "the job's end",
        120,
    )
    assert [result["error"]["code"] for result in ended["results"]] == ["engine_crash"]
    assert engine_starts(house) - starts <= 4


@pytest.mark.slow
def test_a_line_that_takes_worker_and_engine_down_together_is_found_and_ends(house: House) -> None:
    """What the kernel's OOM killer does: nobody is left to say what was in flight."""
    lines = [chat(f"line-{n}", f"question {n}" + " [[sleep 600000]]" * (n == 3)) for n in range(20)]
    house.kill("gpu-1")
    house.start("gpu-1", engine_stuck_seconds="60")  # else its watchdog may be quicker than we are
    batch = house.client.submit(lines)
    for time in range(1, 6):
        house.until(lambda time=time: asked(house, "question 3 ") == time, f"it is asked for the {time}th time", 60)
        house.until(lambda: done(house, batch.id) == 19, "the other lines are answered", 60)
        house.kill("gpu-1")
        house.sql("update leases set expires_at = clock_timestamp() where closed_at is null")
        house.start("gpu-1")
    ended = house.client.ended(batch.id, 90)
    output, errors = house.client.file(ended.output_file_id), house.client.file(ended.error_file_id)
    assert [line["custom_id"] for line in errors] == ["line-3"]
    assert errors[0]["error"]["code"] == "engine_crash"
    assert len(output) == 19
    assert asked(house, "question 3 ") == 5


def done(house: House, batch: str) -> int:
    """Lines of a batch that are recorded."""
    return int(house.ask("select sum(completed) from slices where batch = %s", batch) or 0)
