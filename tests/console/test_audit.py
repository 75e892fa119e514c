"""Audit and recovery: who did what, and what went wrong, for operators."""

from __future__ import annotations

import pytest
from api.live import KEY
from console.admin_desk import HARM, desk, is_inert
from console.browser import Browser, opened
from console.looks import look

from penstock.domain.accounts.audit import Actor
from penstock.service.core import audit
from penstock.service.core.transaction import Database, Transaction
from penstock.store.work import counts


def _act(tx: Transaction, tenant: str, action: str, value: str) -> None:
    tx.actor = Actor("key_1", "req-\u202e1")
    audit.record(tx, tenant, action, "thing_1", name=value)


def _wrong(tx: Transaction) -> None:
    counts.add(tx.conn, "lease_reaped", 3, "batch_<script>1</script>")


@pytest.fixture(scope="module")
def acts(db: Database, url: str) -> Database:
    """Sixty acts about one tenant, and one of another."""
    for number in range(60):
        db.run(_act, "team-a", "webhook_endpoint.created", HARM[number % len(HARM)])
    db.run(_act, "team-b", "api_key.revoked", "one")
    return db


def test_an_operator_finds_who_did_what(chromium: Browser, url: str, acts: Database) -> None:
    with opened(chromium, url, KEY) as page:
        page.get_by_role("link", name="Audit").click()
        page.get_by_label("Tenant", exact=True).fill("team-a")
        page.get_by_role("button", name="Filter").click()
        page.get_by_role("link", name="Next page").click()
        assert "tenant=team-a" in page.url
        assert page.locator("tbody tr").count() == 10
        look(page, "audit-full")
        page.get_by_role("link", name="First page").click()
        page.locator("tbody tr").nth(49).wait_for()
        page.goto("/console/audit?action=api_key.revoked")
        assert page.locator("tbody tr").count() == 1
        page.goto("/console/audit?tenant=nobody")
        page.get_by_text("Nothing here matches.").wait_for()
        page.goto("/console/audit?after=odd")
        page.get_by_role("alert").wait_for()
        look(page, "audit-error")


@pytest.mark.slow
def test_an_operator_sees_what_went_wrong(chromium: Browser, url: str, db: Database) -> None:
    with opened(chromium, url, KEY) as page:
        page.goto("/console/recovery")
        page.get_by_text("not in the last week").first.wait_for()
        look(page, "recovery-empty")
        db.run(_wrong)
        page.get_by_role("link", name="Refresh").click()
        page.get_by_role("heading", name="Lease reaped").wait_for()
        page.get_by_text("batch_<script>1</script>").wait_for()
        look(page, "recovery-full")


def test_these_pages_are_for_operators_and_hold_no_markup_of_others(
    url: str, tenant_key: str, viewer_key: str, acts: Database
) -> None:
    for key in (tenant_key, viewer_key):
        with desk(url, key) as client:
            assert client.get("/console/audit").status_code == 403
            assert client.get("/console/recovery").status_code == 403
    with desk(url, KEY) as client:
        page = client.get("/console/audit", params={"tenant": "team-a", "action": "webhook_endpoint.created"}).text
        assert all(is_inert(page, text) for text in HARM)
        assert "⟨U+202E⟩" in page
        harmful = client.get("/console/audit", params={"tenant": HARM[1]}).text
        assert is_inert(harmful, HARM[1])
        assert client.get("/console/audit?since=yesterday").status_code == 400
        assert client.get("/console/audit?since=1960-01-01").status_code == 200
        assert "Nothing here matches" in client.get("/console/audit?since=2090-01-01").text
