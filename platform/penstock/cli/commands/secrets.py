"""`penstock secrets`: the keys that webhook secrets are encrypted with. The operator's word: it needs the database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from penstock.cli.client import DEFAULT_DATA, Data, told
from penstock.cli.database import opened
from penstock.cli.printing import Json, listed, say, say_json, show, table
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    from penstock.service.core.transaction import Database
    from penstock.service.webhooks.secret_keys import SecretKeys

app = typer.Typer(no_args_is_help=True, help="The keys that webhook secrets are encrypted with.")


@app.command("new-key")
def new_key() -> None:
    """Print a new key, for PENSTOCK_SECRET_KEYS or a line of PENSTOCK_SECRET_KEYS_FILE."""
    from penstock.service.webhooks import secret_keys

    say(secret_keys.new_key())


@app.command()
def status(as_json: Json = False, data: Data = DEFAULT_DATA) -> None:
    """Show how many webhook endpoints are under which key, and whether the key is in force here."""
    with told(), opened(data) as db:
        from penstock.service.webhooks import resealing

        keys = of(data)
        counts = db.run(resealing.counts)
        found = [(id, counts.get(id, 0), _standing(keys, id)) for id in dict.fromkeys([*keys.ids, *counts])]
        if as_json:
            say_json(listed({"key": id or None, "endpoints": count, "is": how} for id, count, how in found))
            return
        show(table(("key", "endpoints", "is"), ((id or "-", str(count), how) for id, count, how in found)))


@app.command()
def rotate(as_json: Json = False, data: Data = DEFAULT_DATA) -> None:
    """Encrypt every webhook secret with the first key again. May be broken off and begun again at any time."""
    with told(), opened(data) as db:
        done = reseal(db, of(data))
        say_json({"count": done}) if as_json else say(f"{done:,} secrets are under the first key now")


def reseal(db: Database, keys: SecretKeys) -> int:
    """Put all secrets under the first key; how many were not. Raises Problem if there is no key, or one is missing."""
    from penstock.service.webhooks import resealing

    if keys.first is None:
        raise Problem("There is no key: set PENSTOCK_SECRET_KEYS or PENSTOCK_SECRET_KEYS_FILE.")
    done, unreadable = 0, 0
    for some in resealing.reseal_all(db, keys):
        done, unreadable = done + some.done, unreadable + len(some.unreadable)
    if unreadable:
        raise Problem(
            f"{unreadable:,} webhook secrets are under a key that is missing (`penstock secrets status`): bring it "
            "back, or let their tenants rotate them. Until then nothing is sent to their endpoints."
        )
    return done


def of(data: Path) -> SecretKeys:
    """The keys of the environment, else those of this data folder."""
    from penstock import settings
    from penstock.service.webhooks import secret_keys
    from penstock.stack import child_environment, layout

    loaded, file = settings.load(), layout.at(data).secret_keys_file
    if not any(name in os.environ for name in child_environment.SECRET_KEYS) and file.exists():
        loaded = loaded.model_copy(update={"secret_keys_file": file})
    return secret_keys.of(loaded)


def _standing(keys: SecretKeys, id: str) -> str:
    if not id:
        return "in clear"
    if id == keys.first:
        return "first: it encrypts"
    return "in force" if id in keys.ids else "MISSING"
