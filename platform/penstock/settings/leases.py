"""Leases: how long a holder is trusted."""

from __future__ import annotations

from pydantic import Field

from penstock.settings.concern import Concern


class LeaseSettings(Concern):
    """Times of leases."""

    lease_seconds: float = Field(
        20.0, gt=0, description="A lease lives this long after a beat, by the database's clock."
    )
    beat_seconds: float = Field(5.0, gt=0, description="A process names the leases it holds this often.")
    close_grace_seconds: float = Field(5.0, description="A holder in a closing batch waits this long for answers.")
