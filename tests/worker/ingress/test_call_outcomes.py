"""Fates of calls are kept for a while, and in bounded memory."""

from __future__ import annotations

from penstock_worker.ingress.call_outcomes import CallOutcome, CallOutcomes, EndedCall


def test_the_last_word_on_a_call_counts() -> None:
    fates = CallOutcomes()
    assert fates.find("one") is None
    fates.note("one", CallOutcome.ANSWERED)
    fates.note("one", CallOutcome.ENGINE_DIED, suspects=True)
    assert fates.find("one") == EndedCall(CallOutcome.ENGINE_DIED, True)


def test_only_the_latest_are_kept() -> None:
    fates = CallOutcomes(3)
    for number in range(1_000):
        fates.note(f"call-{number}", CallOutcome.LEFT)
    assert len(fates) == 3
    assert fates.find("call-996") is None
    assert fates.find("call-997") == EndedCall(CallOutcome.LEFT, False)
