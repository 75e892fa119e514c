"""Call tallies: what is counted of waiting calls' ends: a model's tokens, its version's failures, a member's calls."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.accounts.tokens import Usage
from penstock.domain.ensembles.ensemble import ChosenMember
from penstock.service.calls.call_usage import CallUsage
from penstock.service.calls.ensemble_calls import EnsembleCalls
from penstock.service.calls.version_calls import VersionCalls
from penstock.service.calls.worker_directory import WorkerDirectory


@dataclass(frozen=True, slots=True)
class Party:
    """Whom a call is counted for: one model that was asked."""

    tenant: str
    api_key: str | None
    """The id of the key that asked."""
    queue: str
    """Whose workers were asked: its tokens are counted under it."""
    counted_as: str
    """Its version's, or its adapter's."""
    version: str | None
    """As answers say it; None: it has none, and no guard."""
    chosen: ChosenMember | None
    """Of an ensemble: as whose member."""


@dataclass(frozen=True)
class CallTally:
    """One process's counts of calls, on one event loop."""

    directory: WorkerDirectory
    usage: CallUsage
    versions: VersionCalls
    ensembles: EnsembleCalls

    def answered(self, party: Party, used: Usage) -> None:
        """A model's answer took so many tokens."""
        self.usage.count(party.tenant, party.queue, party.api_key, used)

    def cost(self, party: Party, used: Usage) -> int:
        """What these tokens of a model cost now, in picounits; 0 of a model without a price."""
        price = self.directory.price(party.queue)
        return 0 if price is None else price.tokens(used)

    def ended(self, party: Party, status: int, first_seconds: float) -> None:
        """A call ended so, its first byte after so long: for the guard of aliases, and whoever looks at an ensemble.

        Of a client that left nothing is counted: it says nothing of its version.
        """
        if party.version is not None:
            promised = self.directory.promised_seconds(party.queue)
            slow = promised is not None and first_seconds > promised
            self.versions.count(party.counted_as, failed=status >= 500, slow=slow)
        if party.chosen is not None:
            self.ensembles.count(party.chosen, failed=status >= 400)

    def cancelled(self, party: Party) -> None:
        """A member was asked for nothing: others had decided before it answered. Its tokens are not known."""
        if party.chosen is not None:
            self.ensembles.count(party.chosen, failed=False)
