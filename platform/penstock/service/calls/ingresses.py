"""Ingresses: workers announce where they take waiting calls and pulse how loaded they are; APIs read the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from penstock.domain.accounts.price import Price
from penstock.domain.calls.ingress import Ingress, Load, Slo
from penstock.domain.models.registry import Registry
from penstock.domain.work.holder import Holder
from penstock.service.core.transaction import Transaction
from penstock.service.models import registry
from penstock.settings import Settings
from penstock.settings.calls import CallSettings
from penstock.store.accounts import prices, tenants
from penstock.store.fleet import ingresses, models
from penstock.store.pools import pools
from penstock.store.pools.pools import Servable
from penstock.store.work import call_suspects

DEATHS_TO_REFUSE: Final = 2
"""A call that was in flight at so many engine deaths is not asked a third time."""
_MOST_REFUSED: Final = 10_000


@dataclass(frozen=True)
class RoutingTable:
    """What an API process needs to know to route a call."""

    ingresses: tuple[Ingress, ...]
    registry: Registry
    """Every known name, served or not, and what each stands for."""
    refused: frozenset[bytes]
    """Fingerprints of calls that took engines down."""
    caching: frozenset[str] = frozenset()
    """Tenants whose calls use the shared cache unless they say otherwise."""
    priced: Mapping[str, Price] = field(default_factory=dict)
    """What models cost that have a price, by queue."""
    promised: Mapping[str, float] = field(default_factory=dict)
    """Seconds to the first token that calls are promised, by queue."""
    pooled: Mapping[str, Servable] = field(default_factory=dict)
    """Versions that live pools may serve, awake or not, by queue."""


def announce(
    tx: Transaction,
    holder: Holder,
    url: str,
    serves: Sequence[str],
    slots: int,
    settings: CallSettings,
    revision: str = "",
) -> None:
    """Say where this worker takes calls, for which names, and what makes its engine's answers its own.

    A worker of a version serves its queue, not the plain name: which version a call gets is the router's to say.
    """
    for name in serves:
        models.add(tx.conn, name, "registered")
    ingresses.announce(
        tx.conn, holder.id, url=url, region=settings.region, serves=serves, slots=slots, revision=revision
    )


def pulse(tx: Transaction, holder: Holder, load: Load) -> Slo:
    """Note how loaded a worker is; hear what its model's callers were promised."""
    return ingresses.pulse(tx.conn, holder.id, load)


def table(tx: Transaction, settings: Settings) -> RoutingTable:
    """Open and closed ingresses of live workers, known models, and calls that are refused."""
    return RoutingTable(
        ingresses=tuple(ingresses.page(tx.conn, gone=timedelta(seconds=settings.ingress_gone_seconds))),
        registry=registry.read(tx, frozenset(models.names(tx.conn))),
        refused=frozenset(
            call_suspects.refused(
                tx.conn,
                deaths=DEATHS_TO_REFUSE,
                within=timedelta(seconds=settings.poison_call_seconds),
                limit=_MOST_REFUSED,
            )
        ),
        caching=frozenset(tenants.caching(tx.conn)),
        priced=prices.valid(tx.conn),
        promised=models.promised_seconds(tx.conn),
        pooled=pools.servable(tx.conn, None, gone=timedelta(seconds=settings.worker_gone_seconds)),
    )


def note_death(tx: Transaction, fingerprint: bytes, settings: CallSettings) -> int:
    """An engine died with this call in flight; how many deaths it met lately."""
    return call_suspects.note(tx.conn, fingerprint, within=timedelta(seconds=settings.poison_call_seconds))


def forget_suspects(tx: Transaction, settings: CallSettings) -> int:
    """Forget calls that may be asked again."""
    return call_suspects.forget(tx.conn, within=timedelta(seconds=settings.poison_call_seconds))
