"""`penstock up` with several models: they take turns on this machine, and their definitions stay the same versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.live import Platform, chat, said, until, up

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

FLAGS = ("--engine", "echo", "--model", "one=x", "--model", "two=y", "--awake", "1")


def test_a_batch_of_each_model_is_answered_and_a_later_start_finds_the_same_versions(short_dir: Path) -> None:
    data = short_dir / "pool-up"
    for _ in range(2):
        with up(data, *FLAGS, pool_look_seconds="0.2") as platform:
            batches = [platform.submit([chat("a", f"hello {name}", name)]).id for name in ("one", "two")]
            ended = [platform.ended(id, 120) for id in batches]
            answers = [said(platform.file(batch.output_file_id)[0]) for batch in ended]
            assert answers == ["hello one", "hello two"]
            assert platform.ask("select count(*) from model_versions") == 2
            until(
                lambda up=platform: awake(up) == 1, "one is awake"
            )  # none is between two; hosts say late how they are


def awake(platform: Platform) -> int:
    return int(
        platform.ask(
            "select count(*) from pool_residents r join workers w on w.id = r.host and w.state = 'ready'"
            " where r.state = 'awake'"
        )
    )
