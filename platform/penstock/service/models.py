"""Models: names that the platform knows; a batch that names another one fails."""

from __future__ import annotations

from datetime import timedelta

from penstock.domain.errors import BadRequest, NotFound
from penstock.service.transaction import Transaction
from penstock.settings import Settings
from penstock.store import models
from penstock.store.models import Model


def add(tx: Transaction, name: str) -> bool:
    """Make a model known before a worker serves it; False if it was known already."""
    if not 0 < len(name) <= 200 or not name.isprintable():
        raise BadRequest("A model's name has 1 to 200 printable characters.", param="model")
    return models.add(tx.conn, name, "added")


def page(tx: Transaction, settings: Settings) -> list[Model]:
    """All known models by name."""
    return models.page(tx.conn, gone=timedelta(seconds=settings.worker_gone_seconds))


def get(tx: Transaction, name: str, settings: Settings) -> Model:
    """One known model; raise NotFound."""
    for model in page(tx, settings):
        if model.name == name:
            return model
    raise NotFound("model", name, param="model", code="model_not_found")
