"""`penstock secrets` and `migrate`: every webhook secret comes under the first key, also those kept in clear before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cli.conftest import Penstock
from sqlalchemy import text
from typer.testing import CliRunner, Result

from penstock.cli.main import app
from penstock.domain.webhook import EVENT_TYPES
from penstock.service.admin import keys as api_keys
from penstock.service.core.transaction import Database, Transaction
from penstock.service.webhooks import endpoints, resealing, secret_keys
from penstock.service.webhooks.secret_keys import SecretKeys
from penstock.settings import Settings

OLD, NEW = secret_keys.new_key(), secret_keys.new_key()


def ids(*keys: str) -> tuple[str, ...]:
    return SecretKeys(keys).ids


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A command of the operator with these keys in force."""
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", database_url)
    monkeypatch.delenv("PENSTOCK_DATA", raising=False)

    def run(*arguments: str, keys: str = "") -> Result:
        monkeypatch.setenv("PENSTOCK_SECRET_KEYS", keys)
        return CliRunner().invoke(app, arguments)

    return run


@pytest.fixture
def told(db: Database) -> dict[str, str]:
    """Secrets of some endpoints, under the old key; one was rotated just now."""
    settings = Settings(secret_keys=OLD)
    db.run(api_keys.create, "acme", "test")
    made = [
        db.run(endpoints.create, "acme", "", f"https://a.example/{n}", EVENT_TYPES, None, settings) for n in range(5)
    ]
    made[0] = db.run(endpoints.rotate, "acme", made[0].id, True, settings)
    return {one.id: one.secret for one in made}


def kept(db: Database) -> dict[str, tuple[str, str | None]]:
    def read(tx: Transaction) -> dict[str, tuple[str, str | None]]:
        return {
            row.id: (row.secret, row.old_secret) for row in tx.conn.execute(text("select * from webhook_endpoints"))
        }

    return db.run(read)


def test_rotate_puts_every_secret_under_the_first_key(
    run: Callable[..., Result], db: Database, told: dict[str, str]
) -> None:
    done = run("secrets", "rotate", keys=f"{NEW},{OLD}")
    assert (done.exit_code, done.stdout) == (0, "5 secrets are under the first key now\n")
    rows = kept(db)
    assert {id: SecretKeys([NEW]).open(secret) for id, (secret, _) in rows.items()} == told
    assert [SecretKeys([NEW]).open(old)[:6] for _, old in rows.values() if old] == ["whsec_"]
    assert run("secrets", "rotate", keys=f"{NEW},{OLD}").stdout == "0 secrets are under the first key now\n"
    assert kept(db) == rows, "what is done is passed over"


def test_a_rotation_that_was_broken_off_goes_on_where_it_was(
    run: Callable[..., Result], db: Database, told: dict[str, str]
) -> None:
    some = db.run(resealing.reseal, SecretKeys([NEW, OLD]), "", 2)
    assert (some.done, some.last) == (2, sorted(told)[1])
    assert run("secrets", "rotate", keys=f"{NEW},{OLD}").stdout == "3 secrets are under the first key now\n"


def test_a_missing_key_is_told_and_changes_nothing(
    run: Callable[..., Result], db: Database, told: dict[str, str]
) -> None:
    before = kept(db)
    done = run("secrets", "rotate", keys=NEW)
    assert done.exit_code == 1
    assert "5 webhook secrets are under a key that is missing" in done.stderr
    assert kept(db) == before
    assert "MISSING" in next(
        line for line in run("secrets", "status", keys=NEW).stdout.splitlines() if ids(OLD)[0] in line
    )
    both = run("secrets", "status", keys=f"{NEW},{OLD}").stdout.splitlines()
    assert [line.split()[:2] for line in both[1:]] == [[ids(NEW)[0], "0"], [ids(OLD)[0], "5"]]
    assert NEW not in "".join(both)


def test_migrate_seals_what_was_kept_in_clear(run: Callable[..., Result], db: Database, told: dict[str, str]) -> None:
    def in_clear(tx: Transaction) -> None:
        tx.conn.execute(text("alter table webhook_endpoints disable trigger webhook_secret_is_sealed"))
        for id, secret in told.items():
            tx.conn.execute(
                text("update webhook_endpoints set secret = :secret where id = :id"), {"id": id, "secret": secret}
            )
        tx.conn.execute(text("alter table webhook_endpoints enable trigger webhook_secret_is_sealed"))

    db.run(in_clear)
    warned = run("migrate")
    assert warned.exit_code == 0
    assert "warning: There is no key" in warned.stdout
    assert run("migrate", keys=f"{NEW},{OLD}").stdout == "the database is up to date\n"
    assert {id: SecretKeys([NEW]).open(secret) for id, (secret, _) in kept(db).items()} == told


def test_new_key_prints_one(penstock: Penstock) -> None:
    assert len(ids(penstock("secrets", "new-key").stdout.strip())) == 1
