"""Fates of calls are kept for a while, and in bounded memory."""

from __future__ import annotations

from penstock_worker.fates import Ended, Fate, Fates


def test_the_last_word_on_a_call_counts() -> None:
    fates = Fates()
    assert fates.find("one") is None
    fates.note("one", Fate.ANSWERED)
    fates.note("one", Fate.ENGINE_DIED, suspects=True)
    assert fates.find("one") == Ended(Fate.ENGINE_DIED, True)


def test_only_the_latest_are_kept() -> None:
    fates = Fates(3)
    for number in range(1_000):
        fates.note(f"call-{number}", Fate.LEFT)
    assert len(fates) == 3
    assert fates.find("call-996") is None
    assert fates.find("call-997") == Ended(Fate.LEFT, False)
