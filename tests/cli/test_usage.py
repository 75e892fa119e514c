"""What was used by model, kind of work, lane and key, over all pages; and what was spared of one batch."""

from __future__ import annotations

import json

import httpx
from api.live import arrive, chat, claim_one, completion
from cli.conftest import Penstock
from store import as_holder

from penstock.domain.accounts.tokens import Usage
from penstock.domain.reuse import ReuseSource
from penstock.formats import output
from penstock.service.admin import keys, prices
from penstock.service.core.transaction import Database, Transaction
from penstock.settings import Settings
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


def test_a_batch_says_what_spared_it_how_much(
    penstock: Penstock, client: httpx.Client, db: Database, settings: Settings
) -> None:
    worker = arrive(db, settings, "gpu", "tiny")
    db.run(prices.set_price, "tiny", input="1", cached_input="0.1", output="2", currency="EUR")
    job = client.post("/v1/jobs", json={"model": "tiny", "requests": [{"body": chat()}] * 3}).json()["id"]
    assert "saved" not in penstock("batches", "show", job).stdout
    claim, sources = claim_one(db, settings, worker), (None, ReuseSource.EQUAL, ReuseSource.SHARED)
    said = (200, "req", completion("yes"))
    answers = [output.answered(claim.batch, n, f"request-{n}", *said, reused=sources[n - 1]) for n in (1, 2, 3)]
    db.run(as_holder.flush, claim, 0, answers, None)
    shown = " ".join(penstock("batches", "show", job).stdout.split())
    each = "8 tokens (0.0000105) by"
    assert f"saved 0.000021 EUR: {each} equal lines, {each} shared cache created" in shown
