"""Engine profiles: each says what it lacks, and has what starts it; nothing else knows their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.domain.engines.profile import LACKS, EngineLack, EnginePriority, EngineProfile
from penstock.domain.engines.profiles import ECHO, OLLAMA, PROFILES, REMOTE, SGLANG, VLLM
from penstock_worker.engine import kind

EVERY = [pytest.param(profile, id=name) for name, profile in PROFILES.items()]
PAGE = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()


@pytest.mark.parametrize("profile", EVERY)
def test_each_has_a_function_that_starts_it_and_its_row_in_the_page(profile: EngineProfile) -> None:
    assert callable(kind.starter(profile))
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| `{profile.name}` |")]
    lacks = ", ".join(f"`{lack}`" for lack in profile.lacks) or "nothing"
    assert f"| {lacks} |" in row
    assert profile.words in row
    for gap in profile.gaps:
        assert gap in PAGE


def test_every_lack_is_explained() -> None:
    assert set(LACKS) == set(EngineLack)
    for lack, words in LACKS.items():
        assert f"| `{lack}` | {words} |" in PAGE


def test_what_is_taken_away_is_lacked_and_all_else_stays() -> None:
    assert VLLM.lacks == ECHO.lacks == ()
    for lack in EngineLack:
        assert ECHO.without(lack).lacks == (lack,)
    assert ECHO.without(*EngineLack).lacks == tuple(EngineLack)


def test_a_rank_is_told_in_the_order_that_the_engine_has() -> None:
    assert VLLM.told_priority(3) == 3
    assert REMOTE.told_priority(3) is None
    assert EngineProfile("x", "", "", ECHO.source, priority=EnginePriority.HIGH_FIRST).told_priority(3) == -3


@pytest.mark.parametrize(
    ("profile", "status", "hold", "busy"),
    [
        (REMOTE, 429, None, True),
        (REMOTE, 503, 2.0, True),
        (REMOTE, 503, None, False),
        (REMOTE, 500, 2.0, False),
        (SGLANG, 503, None, True),
        (OLLAMA, 503, None, True),
        (VLLM, 429, 2.0, False),
        (VLLM, 503, 2.0, False),
    ],
)
def test_which_answers_say_that_it_has_enough(
    profile: EngineProfile, status: int, hold: float | None, busy: bool
) -> None:
    assert profile.is_busy(status, hold) is busy
