"""Dispatch: what is ready ahead, who is live, and what rises by a lane."""

from __future__ import annotations

from pydantic import Field

from penstock.settings.concern import Concern


class DispatchSettings(Concern):
    """The keeper's looks, and the order of work."""

    ready_per_worker: int = Field(4, ge=1, description="Slices of a lane that are hinted ahead for each live worker.")
    small_job_lines: int = Field(
        256, ge=1, description="Most lines of small jobs that a worker takes at once, as one slice."
    )
    poll_seconds: float = Field(
        3.0, gt=0, description="A worker that heard no hint for this long asks Postgres (jittered)."
    )
    tick_seconds: float = Field(1.0, gt=0, description="The keeper looks at everything this often.")
    hint_again_seconds: float = Field(5.0, gt=0, description="Work that nobody took is hinted again after this long.")
    worker_gone_seconds: float = Field(
        20.0, gt=0, description="A worker that has not beaten for this long is not live."
    )
    promoted_share: float = Field(
        0.2, ge=0, le=1, description="Most of a lane's tokens that work promoted into it may take."
    )
    promote_slack_seconds: float = Field(30.0, description="A batch with less slack than this rises by one lane.")
