"""`penstock limits`: what a tenant or a key may do. The operator's word: it needs the database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, connected, told
from penstock.cli.database import opened
from penstock.cli.kept_shown import Watch, once_or_kept
from penstock.cli.patient_client import PatientClient
from penstock.cli.printing import Json, say, say_json, table
from penstock.domain.accounts.price import money
from penstock.domain.api_errors import BadRequest
from penstock.domain.limits.limit import OF_KEYS, RULES

if TYPE_CHECKING:
    from rich.console import Group

    from penstock.service.core.transaction import Database

app = typer.Typer(
    no_args_is_help=True, help="Set what tenants and keys may do (needs the database); show what is left."
)
_MOST_DIGITS: Final = 20
"""Of a number; a longer one is no limit (and Python reads no number of thousands)."""

Whose = Annotated[str, typer.Argument(help="Whose.", metavar="TENANT")]
Key = Annotated[str | None, typer.Option("--key", help="Of this key alone, by its id.", metavar="ID")]


@app.command()
def mine(watch: Watch = False, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Show what this key and its tenant may do, and how much of it is used; over the HTTP API."""
    with told(), connected(url, data) as client:
        patient = PatientClient(client)
        once_or_kept(lambda: patient.json("/limits"), _used, watch, as_json)


def _used(found: dict[str, Any]) -> Group:
    """The table, and below it the budget."""
    from rich.console import Group

    rows = (
        (one["name"], one["scope"], f"{one['used']:,}", *(_number(one[what]) for what in ("limit", "remaining")),
         one["counts"]) for one in found["data"]
    )  # fmt: skip
    made, budget = table(("limit", "of", "used", "limit", "left", "counts"), rows), found["budget"]
    if budget is None:
        return Group(made)
    words = f"{budget['used']} of {budget['limit']} {budget['currency'] or ''}".strip()
    return Group(made, f"budget of {budget['month']}: {words} used, {budget['state']}")


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


@app.command("show")
def show_(
    tenant: Whose, key: Key = None, watch: Watch = False, as_json: Json = False, data: Data = DEFAULT_DATA
) -> None:
    """Show what is set; what is not has the default of the settings (docs/limits.md)."""
    with told(), opened(data) as db:
        look = partial(_given if as_json else _set, db, tenant, key)
        once_or_kept(look, _shown, watch, as_json)


def _set(db: Database, tenant: str, key: str | None) -> tuple[list[tuple[str, str, str]], str]:
    """The rows of what is set, and a sentence about the budget, if there is one."""
    from penstock.service.admin import limits
    from penstock.service.limits import report

    given = db.run(limits.of, tenant, key)
    rows = [
        (str(name), str(given[name]) if name in given else "-", rule.words)
        for name, rule in RULES.items()
        if key is None or name in OF_KEYS
    ]
    stands, currency = db.run(report.budget, tenant)
    if key is not None or stands is None or stands.budget is None:
        return rows, ""
    words = f"{money(stands.used)} of {money(stands.budget)} {currency or ''}".strip()
    return rows, f"budget of this month: {words} used" + (f", {stands.state}" if stands.state else "")


def _shown(found: tuple[list[tuple[str, str, str]], str]) -> Group:
    from rich.console import Group

    rows, budget = found
    return Group(table(("limit", "set to", "counts"), rows), *([budget] if budget else []))


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
