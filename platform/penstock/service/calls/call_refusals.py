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


def asleep(model: str, pool: str, waited_seconds: float) -> PenstockError:
    """A version whose turn did not come within the time that a call waits for it."""
    message = (
        f"{model!r} is asleep in pool {pool!r}, and did not wake within {waited_seconds:.0f} s; try again, or send "
        "this as a job, which waits."
    )
    return Unavailable(message, code="asleep", retry_after_seconds=30)


def not_on_demand(model: str, pool: str) -> PenstockError:
    """A version that no call wakes."""
    message = (
        f"{model!r} is asleep in pool {pool!r}, and calls don't wake it: it is not on demand there. Send this as a "
        "job, which waits for its turn."
    )
    return Unavailable(message, code="asleep", retry_after_seconds=60)


def too_many_wait(model: str, pool: str) -> PenstockError:
    """As many calls wait for versions to wake as may."""
    message = f"{model!r} is asleep in pool {pool!r}, and many calls wait for such already; try again shortly."
    return Unavailable(message, code="asleep", retry_after_seconds=10)


def said(error: Exception) -> PenstockError:
    """What a client reads of an answer that broke off."""
    if isinstance(error, PenstockError):
        return error
    if isinstance(error, TimeoutError):
        return CallTimeout()
    if isinstance(error, Broken) and error.reason == "engine-died":
        return Internal("The engine died before the answer was whole.", code="engine_crash")
    return Internal("The worker was lost before the answer was whole.", code="worker_lost")
