"""Budgets: what a tenant may spend in a month (UTC); what is spent is summed from its usage, at the prices of then.

Spent, it begins nothing new, and the keeper pauses what runs (service/control/budgets.py): what is in an engine at
that moment goes on to the end of its slice, so a month may cost that much more. Work without a price can't be summed,
so it is refused under a budget.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from penstock.domain.api_errors import BadRequest
from penstock.service.core.transaction import Transaction
from penstock.store.accounts import budgets, prices

NO_PRICE: Final = "model_without_price"


def check_price(tx: Transaction, tenant: str, models: Sequence[str]) -> None:
    """Raise BadRequest if a tenant with a budget asks a model without a price."""
    if lacking := unpriced(tx, tenant, models):
        raise no_price(lacking[0])


def unpriced(tx: Transaction, tenant: str, models: Collection[str]) -> list[str]:
    """Those of the models that a tenant may not use, since it has a budget and they have no price."""
    if not budgets.has(tx.conn, tenant):
        return []
    there = prices.valid(tx.conn, sorted(models))
    return sorted(model for model in models if model not in there)


def no_price(model: str) -> BadRequest:
    """Why a model is refused."""
    message = f"The model {model!r} has no price, and your tenant has a budget: ask your operator."
    return BadRequest(message, code=NO_PRICE, param="model")
