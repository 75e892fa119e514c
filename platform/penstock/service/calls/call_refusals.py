"""Call refusals: what a client is told of a call that nobody answered, or whose answer broke off."""

from __future__ import annotations

from penstock.domain.api_errors import CallTimeout, Internal, PenstockError, TooMany, Unavailable
from penstock.service.calls.call_attempt import DEATHS, Broken


def nobody(model: str, reasons: list[str], retry_after_seconds: int) -> PenstockError:
    """Why no worker answered."""
    if any(reason in DEATHS for reason in reasons):
        message = "The engine died while it worked on this request, and no other worker could take it over."
        return Unavailable(message, code="engine_crash", retry_after_seconds=5)
    if "share" in reasons:
        message = f"You have as many calls at {model!r} as you may while others may want some; wait for one of them."
        return TooMany(message, headers={"retry-after": "1"})
    if "limited" in reasons:
        message = f"The engine of {model!r} has as many requests as it takes for now; try again later."
        return Unavailable(message, code="engine_rate_limited", retry_after_seconds=retry_after_seconds)
    if "waited" in reasons or "full" in reasons:
        return Unavailable(f"All workers of {model!r} are busy; try again shortly.", code="workers_busy")
    message = f"No worker of {model!r} takes calls at the moment; try again shortly."
    return Unavailable(message, code="no_worker", retry_after_seconds=5)


def said(error: Exception) -> PenstockError:
    """What a client reads of an answer that broke off."""
    if isinstance(error, PenstockError):
        return error
    if isinstance(error, TimeoutError):
        return CallTimeout()
    if isinstance(error, Broken) and error.reason == "engine-died":
        return Internal("The engine died before the answer was whole.", code="engine_crash")
    return Internal("The worker was lost before the answer was whole.", code="worker_lost")
