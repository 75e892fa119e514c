"""`penstock limits`: what a tenant or a key may do. The operator's word: it needs the database."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, Data, console, told
from penstock.cli.database import opened
from penstock.domain.accounts.price import money
from penstock.domain.api_errors import BadRequest
from penstock.domain.limits.limit import OF_KEYS, RULES
from penstock.service.admin import limits
from penstock.service.control import budgets
from penstock.service.limits import report

app = typer.Typer(no_args_is_help=True, help="Set what tenants and keys may do (needs the database).")
out = console()
_MOST_DIGITS: Final = 20
"""Of a number; a longer one is no limit (and Python reads no number of thousands)."""

Whose = Annotated[str, typer.Argument(help="Whose.", metavar="TENANT")]
Key = Annotated[str | None, typer.Option("--key", help="Of this key alone, by its id.", metavar="ID")]


@app.command()
def show(tenant: Whose, key: Key = None, data: Data = DEFAULT_DATA) -> None:
    """Show what is set; what is not has the default of the settings (docs/limits.md)."""
    table = Table("limit", "set to", "counts", box=None, pad_edge=False)
    with told(), opened(data) as db:
        given = db.run(limits.of, tenant, key)
        for name, rule in RULES.items():
            if key is None or name in OF_KEYS:
                table.add_row(name, str(given[name]) if name in given else "-", rule.words)
        out.print(table)
        stands, currency = db.run(report.budget, tenant)
        if key is None and stands is not None and stands.budget is not None:
            words = f"{money(stands.used)} of {money(stands.budget)} {currency or ''}".strip()
            out.print(f"budget of this month: {words} used" + (f", {stands.state}" if stands.state else ""))


@app.command("set")
def set_(
    tenant: Whose,
    pairs: Annotated[list[str], typer.Argument(help="requests_per_minute=600 …; `=default` takes it back.")],
    key: Key = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Set limits, in force within seconds: `penstock limits set acme requests_per_minute=600 files=1000`."""
    with told(), opened(data) as db:
        db.run(limits.change, tenant, dict(map(_pair, pairs)), key)
        out.print(f"set for {key or tenant}: {', '.join(pairs)}")


@app.command()
def budget(
    tenant: Whose,
    amount: Annotated[str, typer.Argument(help="Units of the currency a month (UTC), e.g. 250.00; `none`.")],
    data: Data = DEFAULT_DATA,
) -> None:
    """Set what a tenant may spend in a month: at four fifths it is warned by webhook, spent it begins nothing new."""
    with told(), opened(data) as db:
        db.run(budgets.set_budget, tenant, None if amount == "none" else amount)
        out.print(f"{tenant} may spend {amount} a month" if amount != "none" else f"{tenant} has no budget")


def _pair(text: str) -> tuple[str, int | None]:
    name, equals, value = text.partition("=")
    number = value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS
    if not equals or not (value == "default" or number):
        raise BadRequest(f"Write name=number or name=default, not {text[:64]!r}.")
    return name, None if value == "default" else int(value)
