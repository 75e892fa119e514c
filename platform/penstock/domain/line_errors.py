"""Line errors: how a line ends that has no answer of an engine: its code in the error file, and the words."""

from __future__ import annotations

from typing import Final

from penstock.domain.work.batch import BatchState

CANCELLED: Final = ("batch_cancelled", "This line was not answered before the batch was cancelled.")
EXPIRED: Final = ("batch_expired", "This line was not answered before the batch's completion window ended.")
FAILED: Final = ("internal_error", "This line was not answered because the batch failed.")
TIMED_OUT: Final = ("request_timeout", "The engine did not answer this line in time.")
TOO_LARGE: Final = ("answer_too_large", "The engine's answer had more bytes than are kept of one.")
BROKEN: Final = ("internal_error", "This line met an internal error; it is in the worker's log.")
CRASHED: Final = ("engine_crash", "The engine crashed each time it was asked this line.")
UNREACHED: Final = (
    "engine_error",
    "The engine broke the connection when it was asked this line for the last time, and lived.",
)

WHY_UNANSWERED: Final = {
    BatchState.CANCELLED: CANCELLED,
    BatchState.EXPIRED: EXPIRED,
    BatchState.FAILED: FAILED,
    BatchState.COMPLETED: FAILED,
}
"""Why a line of a batch that ended so has no answer."""
