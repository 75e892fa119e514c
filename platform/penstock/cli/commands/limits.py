"""`penstock limits`: what a tenant or a key may do. The operator's word: it needs the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from penstock.cli.client import DEFAULT_DATA, Data, told
from penstock.cli.database import opened
from penstock.cli.printing import Json, say, say_json, show, table
from penstock.domain.accounts.price import money
from penstock.domain.api_errors import BadRequest
from penstock.domain.limits.limit import OF_KEYS, RULES

if TYPE_CHECKING:
    from penstock.service.core.transaction import Database

app = typer.Typer(no_args_is_help=True, help="Set what tenants and keys may do (needs the database).")
_MOST_DIGITS: Final = 20
"""Of a number; a longer one is no limit (and Python reads no number of thousands)."""

Whose = Annotated[str, typer.Argument(help="Whose.", metavar="TENANT")]
Key = Annotated[str | None, typer.Option("--key", help="Of this key alone, by its id.", metavar="ID")]


@app.command("show")
def show_(tenant: Whose, key: Key = None, as_json: Json = False, data: Data = DEFAULT_DATA) -> None:
    """Show what is set; what is not has the default of the settings (docs/limits.md)."""
    with told(), opened(data) as db:
        from penstock.service.admin import limits
        from penstock.service.limits import report

        if as_json:
            say_json(_given(db, tenant, key))
            return
        given = db.run(limits.of, tenant, key)
        rows = (
            (name, str(given[name]) if name in given else "-", rule.words)
            for name, rule in RULES.items()
            if key is None or name in OF_KEYS
        )
        show(table(("limit", "set to", "counts"), rows))
        stands, currency = db.run(report.budget, tenant)
        if key is None and stands is not None and stands.budget is not None:
            words = f"{money(stands.used)} of {money(stands.budget)} {currency or ''}".strip()
            say(f"budget of this month: {words} used" + (f", {stands.state}" if stands.state else ""))


def _given(db: Database, tenant: str, key: str | None) -> Any:
    """What `GET /v1/admin/tenants/{id}/limits` says, or of a key its own."""
    from penstock.api.routes.admin.limits import GivenLimits
    from penstock.service.admin import limits
    from penstock.service.limits import report

    given = {str(name): value for name, value in sorted(db.run(limits.of, tenant, key).items())}
    stands, _ = db.run(report.budget, tenant)
    budget = None if key or stands is None or stands.budget is None else money(stands.budget)
    return GivenLimits(limits=given, monthly_budget=budget)


@app.command("set")
def set_(
    tenant: Whose,
    pairs: Annotated[list[str], typer.Argument(help="requests_per_minute=600 …; `=default` takes it back.")],
    key: Key = None,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Set limits, in force within seconds."""
    with told(), opened(data) as db:
        from penstock.service.admin import limits

        db.run(limits.change, tenant, dict(map(_pair, pairs)), key)
        say_json(_given(db, tenant, key)) if as_json else say(f"set for {key or tenant}: {', '.join(pairs)}")


@app.command()
def budget(
    tenant: Whose,
    amount: Annotated[str, typer.Argument(help="Units of the currency a month (UTC), e.g. 250.00; `none`.")],
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Set what a tenant may spend in a month: at four fifths it is warned by webhook, spent it begins nothing new."""
    with told(), opened(data) as db:
        from penstock.service.control import budgets

        db.run(budgets.set_budget, tenant, None if amount == "none" else amount)
        words = f"{tenant} may spend {amount} a month" if amount != "none" else f"{tenant} has no budget"
        say_json(_given(db, tenant, None)) if as_json else say(words)


def _pair(text: str) -> tuple[str, int | None]:
    name, equals, value = text.partition("=")
    number = value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS
    if not equals or not (value == "default" or number):
        raise BadRequest(f"Write name=number or name=default, not {text[:64]!r}.")
    return name, None if value == "default" else int(value)
