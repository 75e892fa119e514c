"""Prices: the operator says what a model costs, from when on."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from penstock.domain.accounts.price import Price, read
from penstock.domain.api_errors import BadRequest, NotFound
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.store.accounts import prices
from penstock.store.fleet import models

_CURRENCY: Final = re.compile(r"[A-Z]{3}", re.ASCII)


def set_price(
    tx: Transaction,
    model: str,
    *,
    input: str | None = None,
    cached_input: str | None = None,
    output: str | None = None,
    gpu_second: str | None = None,
    currency: str | None = None,
    valid_from: datetime | None = None,
) -> Price:
    """Set what is named, and keep the rest as it is now; cached input costs what input costs, unless told."""
    prices.lock(tx.conn)
    if not models.known(tx.conn, [model]):
        raise NotFound("model", model, param="model", code="model_not_found")
    ours = prices.currency(tx.conn)
    said = (currency or ours or "USD").upper()
    if not _CURRENCY.fullmatch(said):
        raise BadRequest(f"currency must be three letters such as USD, not {said[:40]!r}.", param="currency")
    if ours not in (None, said):
        raise BadRequest(f"All prices are in {ours}: costs are summed over models.", param="currency")
    now = prices.valid(tx.conn, [model]).get(model)
    plain = read(input, "input") if input is not None else now.input if now else 0
    values = {
        "input": plain,
        "cached_input": read(cached_input, "cached_input") if cached_input is not None
        else now.cached_input if now and now.cached_input != now.input else plain,
        "output": read(output, "output") if output is not None else now.output if now else 0,
        "gpu": read(gpu_second, "gpu_second") if gpu_second is not None else now.gpu if now else 0,
    }  # fmt: skip
    since = prices.add(tx.conn, model, currency=said, valid_from=valid_from, **values)
    if since is None:
        raise BadRequest("Another price of this model begins at that moment.", param="valid_from")
    audit.record(tx, audit.NOBODY, "model.priced", model, currency=said, valid_from=since.isoformat(), **values)
    return Price(model, since, said, **values)


def page(tx: Transaction) -> list[Price]:
    """Every price, past and coming ones too."""
    return prices.page(tx.conn)
