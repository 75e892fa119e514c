"""Usage: what was used and saved, as figures, bars, a table and a file for spreadsheets."""

from __future__ import annotations

import csv
import io

import pytest
from api.live import KEY
from console.admin_desk import desk
from console.browser import Browser, opened
from console.looks import look

from penstock.console import csv_export
from penstock.domain.accounts.tokens import Usage
from penstock.service.admin import keys, models, prices
from penstock.service.core.transaction import Database, Transaction
from penstock.store.accounts import usage

FORMULA = "=cmd|'/c calc'!A1"


def _call(tx: Transaction, tenant: str, model: str, used: Usage, cost: int, api_key: str | None = None) -> None:
    usage.add_calls(tx.conn, tenant, model, 3, used, cost, api_key)


def _lines(tx: Transaction, lane: str) -> None:
    tx.conn.exec_driver_sql(
        "insert into usage_lines select 'team-a', 'tiny', date_trunc('hour', now()), 1, 0, 0, 0, 0, 0, 0, 0, 0, %s, ''",
        (lane,),
    )


@pytest.fixture(scope="module")
def used(db: Database, tenant_key: str) -> Database:
    """Calls of two models, one of which has a price and the other an odd name; and a line of a key with one."""
    db.run(models.add, "tiny")
    db.run(prices.set_price, "tiny", input="1", cached_input="0.1", output="2", currency="EUR")
    db.run(_call, "team-a", "tiny", Usage(10_000, 8_000, 4_000, 0, 1_000), 8_800_000_000)
    db.run(_call, "team-a", FORMULA, Usage(1_000, 0, 500), 0)
    db.run(_call, "team-a", "tiny", Usage(), 0, db.run(keys.create, "team-a", FORMULA)[0])
    for lane in ("flex", ""):
        db.run(_lines, lane)
    return db


def test_a_person_sees_what_was_used_and_saved(chromium: Browser, url: str, tenant_key: str, used: Database) -> None:
    with opened(chromium, url, KEY) as page:
        page.get_by_role("link", name="Usage").click()
        page.get_by_role("heading", name="Nothing was used in these 7 days").wait_for()
        look(page, "usage-empty")
    with opened(chromium, url, tenant_key) as page:
        page.goto("/console/usage")
        page.get_by_role("img", name="Tokens from").wait_for()
        assert page.locator("svg.chart rect").count() == 4, "each part of the day's bar"
        page.get_by_text("72.7 % cached").or_(page.get_by_text("73 % cached")).wait_for()
        look(page, "usage-full")
        page.get_by_role("link", name="31 days").click()
        page.get_by_role("link", name="Batches and calls apart").click()
        page.get_by_role("cell", name="waiting calls").first.wait_for()
        assert "span=31d" in page.url
        page.get_by_role("link", name="By API key").click()
        page.get_by_role("cell", name=f"{FORMULA} (key_").first.wait_for()
        page.get_by_role("cell", name="key not recorded").first.wait_for()
        look(page, "usage-by-key")
        page.get_by_role("link", name="By lane").click()
        for words in ("waiting calls", "flex", "lane not recorded"):
            page.get_by_role("cell", name=words, exact=True).first.wait_for()
        assert "by=lane" in page.url


def test_the_export_has_every_row_and_no_formula(url: str, tenant_key: str, used: Database) -> None:
    with desk(url, tenant_key) as client:
        answer = client.get("/console/usage.csv")
        assert answer.headers["content-disposition"] == 'attachment; filename="usage-7d-model.csv"'
        assert answer.headers["content-type"].startswith("text/csv")
        rows = {row["group"]: row for row in csv.DictReader(io.StringIO(answer.text))}
        assert rows.keys() == {"tiny", f"'{FORMULA}"}
        assert (rows["tiny"]["requests"], rows["tiny"]["input_cached_tokens"]) == ("8", "8000")
        assert (rows["tiny"]["cost"], rows["tiny"]["currency"]) == ("0.0088", "EUR")
        by_key = {
            row["group"]: row for row in csv.DictReader(io.StringIO(client.get("/console/usage.csv?by=key").text))
        }
        [own] = by_key.keys() - {"key not recorded"}
        assert own.startswith(f"'{FORMULA} (key_")
        for by in ("batch", "lane", "key"):
            apart = csv.DictReader(io.StringIO(client.get(f"/console/usage.csv?by={by}").text))
            assert sum(int(row["requests"]) for row in apart) == 11
        page = client.get("/console/usage").text
        assert "=cmd|&#39;" in page
        assert client.get("/console/usage?span=1y").status_code == 400
    with desk(url, KEY) as client:
        assert client.get("/console/usage.csv").text.count("\n") == 1, "nothing of another tenant"


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\n=1"])
def test_a_cell_that_begins_a_formula_is_text(cell: str) -> None:
    [[written]] = list(csv.reader(io.StringIO(csv_export.written(["a"], [[cell]]), newline="")))[1:]
    assert written == f"'{cell}"
    assert csv_export.written(["a"], [["tiny", -1]]) == "a\r\ntiny,-1\r\n", "numbers stay numbers"
