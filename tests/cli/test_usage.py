"""`penstock usage` says what was used by model, kind of work, lane and key, and goes through all pages."""

from __future__ import annotations

import json

from cli.conftest import Penstock

from penstock.domain.accounts.tokens import Usage
from penstock.service.admin import keys
from penstock.service.core.transaction import Database, Transaction
from penstock.store.accounts import usage


def _call(tx: Transaction, key: str | None) -> None:
    usage.add_calls(tx.conn, "default", "tiny", 2, Usage(10, 8, 4), 0, key)


def test_usage_is_shown_by_key_and_by_lane(penstock: Penstock, db: Database) -> None:
    id, _ = db.run(keys.create, "default", "nightly")
    for key in (id, None):
        db.run(_call, key)
    shown = penstock("usage", "--by", "key", "--by", "lane").output.splitlines()
    assert shown[0].split()[:5] == ["from", "(UTC)", "key", "lane", "requests"]
    rows = sorted(" ".join(line.split()[2:-3]) for line in shown[1:])
    assert rows == [f"nightly · {id} waiting calls 2 10 8 4", "not recorded waiting calls 2 10 8 4"]
    [whole] = [line.split()[2:7] for line in penstock("usage", "--by", "work").output.splitlines()[1:]]
    assert whole == ["waiting", "calls", "4", "20", "16"]
    assert penstock("usage", "--by", "colour").exit_code == 2


def test_usage_of_very_many_keys_is_read_page_by_page(penstock: Penstock, db: Database) -> None:
    with db.engine.begin() as conn:
        conn.exec_driver_sql("""
            insert into usage_calls
            select 'default', 'tiny', date_trunc('hour', now(), 'UTC') - mod(n, 3) * interval '1 hour',
                   1, 1, 0, 0, 0, 0, 0, 0, 0, 'key_' || n from generate_series(1, 24000) n""")
    told = json.loads(penstock("usage", "--by", "key", "--width", "1h", "--last", "5", "--json").output)
    assert (len(told["data"]), sum(len(bucket["results"]) for bucket in told["data"])) == (5, 24_000)
