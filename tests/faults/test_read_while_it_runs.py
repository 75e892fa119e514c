"""Readers of a batch that runs get each answer once, whoever is killed: what they have at the end are its files' lines.

PENSTOCK_READ_LINES makes the batch larger; then nobody reads it line by line.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from e2e.live import PENSTOCK, chat
from faults.house import KEY, House
from faults.load import check

pytestmark = pytest.mark.timeout(900)

LINES = int(os.environ.get("PENSTOCK_READ_LINES", "1000"))
LIMITS = (1, 7, 7, 10_000) if LINES <= 5_000 else (7, 1_000, 10_000)
SLOTS = 8 if LINES <= 5_000 else 64  # some 10 s of work: a worker that is killed has some, however busy the machine
LATENCY_MS = 150
SECONDS = 120 + LINES / 50


@dataclass
class Follower:
    """Reads so many lines at a time and goes on where it was, whatever its connection meets."""

    url: str
    batch: str
    limit: int
    lines: list[bytes] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of each request that was answered."""
    broken: int = 0
    early: int = 0
    """Lines that it had before the batch had ended."""

    def follow(self) -> None:
        end = time.monotonic() + SECONDS
        with httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, trust_env=False) as client:
            while time.monotonic() < end:
                began = time.monotonic()
                try:
                    answer = client.get(
                        f"/v1/batches/{self.batch}/results", params={"after": len(self.lines), "limit": self.limit}
                    )
                except httpx.TransportError:
                    self.broken += 1
                    time.sleep(0.1)
                    continue
                self.seconds.append(time.monotonic() - began)
                if answer.status_code == 503:
                    continue
                assert answer.status_code == 200, answer.text
                came = answer.content.splitlines(keepends=True)
                assert len(came) <= self.limit
                self.lines += came
                end = time.monotonic() + SECONDS if came else end  # one at a time takes as long as the machine does
                assert int(answer.headers["x-last-line"]) == len(self.lines)
                if answer.headers["x-incomplete"] == "false":
                    return
                if not came:
                    time.sleep(0.05)
        raise AssertionError(f"{self.limit} at a time: {len(self.lines)} lines, and no more for {SECONDS:.0f} s")


@contextmanager
def followed(house: House, batch: str, output: Path) -> Iterator[subprocess.Popen[str]]:
    """The command line's reader, once it has some lines."""
    command = [PENSTOCK, "batches", "results", batch, "--follow", "--url", house.url, "--output", str(output)]
    environment = os.environ | {"PENSTOCK_API_KEY": KEY}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            parts = f"{output.name}.part.*"
            house.until(
                lambda: any(one.stat().st_size for one in output.parent.glob(parts)), "the command line reads", SECONDS
            )
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def house(build: Callable[..., House]) -> House:
    """Two gpu workers; leases are short, so that a death is seen soon."""
    return build(
        gpus=2,
        engine_arguments=[f"--max-num-seqs={SLOTS}", f"--latency-ms={LATENCY_MS}", "--jitter=0.9"],
        lease_seconds="3",
        beat_seconds="1",
        worker_gone_seconds="4",
        flush_seconds="0.2",
        slice_lines="50",
    )


@pytest.mark.slow
def test_readers_have_each_answer_once_though_workers_and_the_api_are_killed(house: House, tmp_path: Path) -> None:
    lines = [chat(f"q-{n}", f"[[status 400]] no {n}" if n % 40 == 0 else f"line {n}") for n in range(1, LINES + 1)]
    batch = house.client.submit(lines).id
    followers = [Follower(house.url, batch, limit) for limit in LIMITS]

    def recorded(part: float) -> None:
        query = "select coalesce(sum(completed + failed), 0) from slices where batch = %s"
        house.until(lambda: house.ask(query, batch) >= part * LINES, f"{part:.0%} are recorded", SECONDS)

    began = time.monotonic()
    output = tmp_path / "all.jsonl"
    with ThreadPoolExecutor(len(followers)) as pool:
        reading = [pool.submit(follower.follow) for follower in followers]
        with followed(house, batch, output) as command:
            # Killed as soon as so much is recorded: both have slices then, however busy the machine is.
            for part, name in ((0.1, "gpu-1"), (0.3, "gpu-2"), (0.5, "api-1")):
                recorded(part)
                house.kill(name)
                house.start(name)
            query = "select state from batches where id = %s"
            house.until(lambda: house.ask(query, batch) == "completed", "it is completed", SECONDS)
            for follower in followers:
                follower.early = len(follower.lines)
            for one in reading:
                one.result()
            words = f"{LINES // 40:,} of {LINES:,} lines failed: penstock batches results {batch} --errors FILE\n"
            assert (command.wait(60), command.stderr and command.stderr.read()) == (0, words)
    seconds = time.monotonic() - began
    done = house.client.ended(batch)
    assert done.request_counts
    assert (done.request_counts.completed, done.request_counts.failed) == (LINES - LINES // 40, LINES // 40)
    files = [done.output_file_id, done.error_file_id]
    both = b"".join(house.client.sdk.files.content(file or "").content for file in files)
    wanted = sorted(both.splitlines(keepends=True))
    assert len(wanted) == LINES
    for follower in followers:
        assert sorted(follower.lines) == wanted, f"{follower.limit} at a time"
        assert follower.lines == followers[0].lines, "all read one order"
        assert follower.broken, "the API was killed under each"
        took = f"median {statistics.median(follower.seconds):.3f} s, slowest {max(follower.seconds):.3f} s"
        told = f"{len(follower.seconds):,} pages, {took}, {follower.broken} broken"
        early = f"{follower.early:,} lines before the end"
        print(f"{LINES:,} lines in {seconds:.1f} s, {follower.limit:,} at a time: {told}, {early}")
    assert output.read_bytes() == b"".join(followers[0].lines), "so does the command line"
    assert followers[-1].early > LINES // 20, "it read while it ran"
    reaped = house.ask("select count(*) from leases where batch = %s and closed_as = 'reaped'", batch)
    assert reaped >= 2, "both workers died with slices in their hands"
    check(house)
