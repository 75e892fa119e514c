"""A diagnosis: what the database knows, for the doctor: of itself, of live processes, and of what they need."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from penstock.domain.calls.ingress import Ingress
from penstock.domain.fleet.server_facts import ServerFacts
from penstock.domain.fleet.worker import Worker
from penstock.service.admin import health
from penstock.service.core.transaction import Transaction
from penstock.service.webhooks import resealing
from penstock.settings import Settings
from penstock.store import server_facts
from penstock.store.fleet import ingresses


@dataclass(frozen=True)
class Diagnosis:
    """The platform at one moment."""

    processes: tuple[Worker, ...]
    """Keepers, io and gpu workers that live."""
    ingresses: tuple[Ingress, ...]
    """Where ready workers take waiting calls."""
    webhooks_by_key: dict[str, int]
    """How many webhook endpoints' secrets are under each key, by its id."""


def facts(tx: Transaction) -> ServerFacts:
    """What the server says of itself; on a database without our tables too."""
    return server_facts.read(tx.conn)


def diagnose(tx: Transaction, settings: Settings) -> Diagnosis:
    """What our tables say."""
    return Diagnosis(
        tuple(health.live(tx, settings.worker_gone_seconds)),
        tuple(ingresses.page(tx.conn, gone=timedelta(seconds=settings.ingress_gone_seconds))),
        resealing.counts(tx),
    )
