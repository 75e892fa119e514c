"""The sweep: what is left over, and how long it is kept."""

from __future__ import annotations

from pydantic import Field

from penstock.settings.concern import Concern


class SweepSettings(Concern):
    """Times to keep."""

    sweep_seconds: float = Field(60.0, gt=0, description="The keeper looks for what may go this often.")
    unfinished_blob_seconds: float = Field(86_400, description="A blob that nobody published for so long is given up.")
    pieces_seconds: float = Field(
        3_600, description="An ended batch keeps plan and segments so long, for who reads on."
    )
    batches_seconds: float = Field(
        365 * 86_400,
        ge=0,
        description="Ended batches, jobs and runs of evals are kept so long; 0: until deleted.",
    )
    events_seconds: float = Field(30 * 86_400, description="Events, and deliveries that are over, are kept this long.")
    erasure_late_seconds: float = Field(
        900, ge=0, description="A blob that was being written as its tenant was erased is deleted so much later."
    )
    usage_seconds: float = Field(
        1_095 * 86_400, ge=62 * 86_400, description="What was used in an hour is known this long, longer than a budget."
    )
    session_idle_seconds: float = Field(
        12 * 3_600, gt=0, description="A session of the console that asks nothing for so long is over."
    )
    audit_seconds: float = Field(365 * 86_400, gt=0, description="Who did what is kept this long.")
    trail_seconds: float = Field(30 * 86_400, description="State moves are kept this long, a day at least: an audit.")
