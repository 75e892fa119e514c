"""A gpu worker whose engine runs elsewhere, at a provider with limits of its own: batches and calls go over it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.live import CHAT, Platform, chat, until
from worker.elsewhere import elsewhere

FAR = "far"


@contextmanager
def worker_beside(platform: Platform, model: str, url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """One more gpu worker of the platform, of an engine there."""
    environment = platform.child("api").environ()  # Celery writes over that of its own processes
    command = [sys.executable, "-m", "penstock_worker", "gpu", "--model", f"{model}={url}", "--engine", "remote"]
    command += [f"--engine-arg={argument}" for argument in arguments]
    log = platform.data / "logs" / f"gpu-{model}.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, text=True, cwd="/")
    try:
        yield process
    except AssertionError as error:
        error.add_note(log.read_text()[-4000:])
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the provider was asked."""
    return tmp_path_factory.mktemp("far") / "journal"


@pytest.fixture(scope="module")
def far(platform: Platform, journal: Path) -> Iterator[Platform]:
    """The platform with a model whose provider takes three requests at once."""
    with (
        elsewhere("--most-at-once=3", "--latency-ms=20", f"--journal={journal}", model=FAR) as there,
        worker_beside(platform, FAR, there.url, "--max-num-seqs=32"),
    ):
        live = "select count(*) from workers where model = %s and state = 'ready' and open"
        until(lambda: platform.ask(live, FAR) == 1, "the far engine is ready")
        yield platform


def test_a_batch_takes_as_long_as_the_provider_allows_and_no_line_pays_for_its_refusals(
    far: Platform, journal: Path
) -> None:
    lines = [chat(f"f-{n}", f"far line {n}", model=FAR) for n in range(120)]
    batch = far.submit(lines)
    until(
        lambda: far.ask("select budget_reason = 'refused' and budget < 28 from workers where model = %s", FAR),
        "the budget follows what the provider refuses",
    )
    ended = far.ended(batch.id)
    assert ended.request_counts
    assert (ended.request_counts.completed, ended.request_counts.failed) == (120, 0)
    asked = [row.split("\t")[2] for row in journal.read_text().splitlines()]
    assert set(asked) == {f"far line {n}" for n in range(120)}
    assert len(asked) > 120, "some were turned away, and came again"


def test_a_call_goes_over_it_too_and_one_that_is_turned_away_hears_when_to_come_again(far: Platform) -> None:
    def ask(text: str) -> tuple[int, str | None, str | None]:
        answer = far.http.post(CHAT.removeprefix("/v1"), json=chat("", text, model=FAR)["body"])
        error = answer.json().get("error") or {}
        return answer.status_code, error.get("code"), answer.headers.get("retry-after")

    assert ask("hi")[0] == 200
    assert ask("[[status 429 times 1 after 2]]") == (503, "engine_rate_limited", "2")
    refused = ask("hi")
    assert refused[:2] == (503, "engine_rate_limited"), "it said for how long: it is not asked again before"
    until(lambda: ask("hi")[0] == 200, "calls go again")


def test_what_it_lacks_is_in_the_api(far: Platform) -> None:
    model = far.http.get(f"/models/{FAR}").json()
    assert model["engines"] == ["remote"]
    assert model["lacks"] == ["cache_salt", "lists", "metrics", "priority", "request_ids", "tokenizer"]


def test_a_worker_whose_engine_will_never_do_ends_with_one_line_that_says_why(platform: Platform) -> None:
    with elsewhere(model="other") as there, worker_beside(platform, "mine", there.url) as worker:
        assert worker.wait(60) == 1
    last = (platform.data / "logs" / "gpu-mine.log").read_text().splitlines()[-1]
    assert last.startswith(
        f"penstock worker: The engine does not start: error: the engine at {there.url} has other, not mine (its log: "
    )
    assert os.path.exists(last.rpartition("its log: ")[2].rstrip(")"))
