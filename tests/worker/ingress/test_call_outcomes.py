"""Fates of calls are kept for a while, and in bounded memory."""

from __future__ import annotations

from penstock_worker.ingress.call_outcomes import CallOutcome, CallOutcomes, EndedCall


def test_the_last_word_on_a_call_counts() -> None:
    outcomes = CallOutcomes()
    assert outcomes.find("one") is None
    outcomes.note("one", CallOutcome.ANSWERED)
    outcomes.note("one", CallOutcome.ENGINE_DIED, suspects=True)
    assert outcomes.find("one") == EndedCall(CallOutcome.ENGINE_DIED, True)


def test_only_the_latest_are_kept() -> None:
    outcomes = CallOutcomes(3)
    for number in range(1_000):
        outcomes.note(f"call-{number}", CallOutcome.LEFT)
    assert len(outcomes) == 3
    assert outcomes.find("call-996") is None
    assert outcomes.find("call-997") == EndedCall(CallOutcome.LEFT, False)
