"""Member progress: how far the members of an ensemble are with the lines of one batch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemberProgress:
    """Of one member of one version of an ensemble. Lines are counted once for each member that is asked them."""

    ensemble: str
    """With its version: `support@v2`."""
    member: str
    """Its label: `tiny#2`, `judge`."""
    model: str
    """With its version, where it has any."""
    asked: int
    """Lines that go to it, as far as that is known."""
    answered: int
    failed: int
    """Of these."""
    undecided: int
    """Lines of which it is not known yet whether they will go to it: the members before it are not done with them."""

    @property
    def left(self) -> int:
        """Of those that are asked."""
        return self.asked - self.answered - self.failed
