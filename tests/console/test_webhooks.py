"""Webhooks: an endpoint is made (its secret shown once), tested, and what failed is sent again."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from api.live import create, http, log_lines, upload
from console.admin_desk import HARM, desk, is_inert
from console.browser import Browser, opened
from console.looks import look
from console.test_tenants import secret_of
from worker.receiver import Answer, Receiver

from penstock.service.core.transaction import AsyncDatabase
from penstock.settings import Settings
from penstock.store.engine import async_engine
from penstock.wire.outbound import Outbound
from penstock_worker.io.webhook_sender import WebhookSender


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    """Loopback is the operator's own network, and a second try is the last."""
    return settings.model_copy(
        update={
            "outbound_allow": "127.0.0.0/8",
            "webhook_timeout_seconds": 10.0,
            "webhook_poll_seconds": 0.05,
            "webhook_waits_seconds": (0.0, 0.05),
        }
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one


@pytest.fixture
def sender(settings: Settings) -> Iterator[WebhookSender]:
    """What an io worker sends with."""
    db = AsyncDatabase(async_engine(settings.database_url, 2), lambda hints: None)
    with WebhookSender(db, Outbound([ip_network("127.0.0.0/8")]), settings) as one:
        yield one


def test_a_person_makes_an_endpoint_tests_it_and_sends_again_what_failed(
    chromium: Browser, url: str, tenant_key: str, receiver: Receiver, sender: WebhookSender
) -> None:
    receiver.answers("/hook", Answer(500, body=b"<script>alert(1)</script>"))
    with opened(chromium, url, tenant_key) as page:
        page.get_by_role("link", name="Webhooks").click()
        page.get_by_role("heading", name="No endpoint yet").wait_for()
        look(page, "webhooks-empty")
        page.get_by_label("Address").fill("http://10.0.0.1/private")
        page.get_by_label("Name").fill("our hooks")
        page.get_by_role("button", name="Create").click()
        page.get_by_role("alert").wait_for()
        assert page.get_by_label("Name").input_value() == "our hooks"
        look(page, "webhooks-error")
        page.get_by_label("Address").fill(receiver.url("/hook"))
        page.get_by_role("button", name="Create").click()
        page.get_by_role("heading", name="A new webhook endpoint").wait_for()
        secret = page.locator("#secret").inner_text()
        assert secret.startswith("whsec_")
        page.get_by_role("link", name="I have it").click()
        page.get_by_text("Nothing was sent there yet").wait_for()
        assert secret not in page.content()

        page.get_by_role("button", name="Send a test").click()
        page.get_by_role("heading", name="Payload").wait_for()
        assert page.get_by_text("<script>alert(1)</script>").is_visible()
        look(page, "delivery")
        page.get_by_role("link", name="Webhooks").last.click()
        look(page, "webhooks-full")
        page.get_by_role("link", name="our hooks").click()
        page.get_by_role("link", name="Failed").click()
        page.get_by_text("500 in").wait_for()
        look(page, "webhook-full")
        page.get_by_text("Disable…").click()
        page.get_by_role("button", name="Disable it").click()
        page.get_by_role("button", name="Enable").click()
        page.get_by_text("Events go there again").wait_for()
        page.get_by_role("button", name="Rotate it").click()
        page.get_by_role("heading", name="A new secret").wait_for()
        assert page.locator("#secret").inner_text() not in ("", secret)
        page.get_by_role("link", name="I have it").click()
        page.get_by_text("Delete…").click()
        page.get_by_role("button", name="Delete it").click()
        page.get_by_text("The endpoint is deleted.").wait_for()


def test_what_failed_is_sent_again_one_or_all(
    url: str, tenant_key: str, receiver: Receiver, sender: WebhookSender
) -> None:
    receiver.answers("/again", 500)
    with http(url, tenant_key) as api, desk(url, tenant_key) as client:
        made = api.post("/v1/webhook_endpoints", json={"url": receiver.url("/again")}).json()["id"]
        file = upload(api)["id"]
        for _ in range(2):
            api.post(f"/v1/batches/{create(api, file)['id']}/cancel").raise_for_status()
        receiver.wait("/again", 4)
        place = f"/console/webhooks/{made}"
        while (page := client.get(place, params={"status": "failed"}).text).count(f"{place}/deliveries/") < 2:
            pass
        receiver.answers("/again", 200)
        one = page.partition(f"{place}/deliveries/")[2].partition('"')[0]
        assert client.post(f"{place}/deliveries/{one}/replay").status_code == 303
        receiver.wait("/again", 5)
        assert client.post(f"{place}/replay").headers["location"] == f"{place}?done=replayed"
        receiver.wait("/again", 6)
        while client.get(place, params={"status": "delivered"}).text.count(f"{place}/deliveries/") < 2:
            pass
        assert client.post(f"{place}/deliveries/dlv_none/replay").status_code == 404
        assert client.get(place, params={"status": "lost"}).status_code == 400
        assert client.post(f"{place}/explode").status_code == 400


def test_a_secret_is_in_its_own_answer_only(url: str, tenant_key: str) -> None:
    with desk(url, tenant_key) as client:
        sent = {"url": "http://127.0.0.1:9/once", "name": "once", "event_types": ["batch.completed", "batch.failed"]}
        made = client.post("/console/webhooks", data=sent)
        secret = secret_of(made)
        assert (made.status_code, made.headers["cache-control"]) == (200, "no-store")
        assert secret not in client.get("/console/webhooks").text
        assert not any(secret in line for line in log_lines())


def test_endpoints_of_another_tenant_are_not_there_and_a_viewer_changes_none(
    url: str, tenant_key: str, viewer_key: str
) -> None:
    with http(url) as operator, http(url, tenant_key) as owner:
        foreign = operator.post("/v1/webhook_endpoints", json={"url": "http://127.0.0.1:9/x"}).json()["id"]
        own = owner.post("/v1/webhook_endpoints", json={"url": "http://127.0.0.1:9/y"}).json()["id"]
    acts = ("enable", "disable", "delete", "test", "replay", "rotate", "change")
    form = {"url": "http://127.0.0.1:9/z", "event_types": "batch.failed"}
    with desk(url, tenant_key) as client:
        assert client.get(f"/console/webhooks/{foreign}").status_code == 404
        for act in set(acts) - {"replay"}:
            assert client.post(f"/console/webhooks/{foreign}/{act}", data=form).status_code == 404, act
    with desk(url, viewer_key) as client:
        page = client.get(f"/console/webhooks/{own}")
        assert page.status_code == 200
        assert "<form" not in page.text.partition("<main")[2]
        for act in acts:
            assert client.post(f"/console/webhooks/{own}/{act}", data=form).status_code == 403, act
        assert client.post("/console/webhooks", data=form).status_code == 403


def test_names_of_endpoints_stay_text(url: str, tenant_key: str) -> None:
    with desk(url, tenant_key) as client, http(url, tenant_key) as owner:
        for name in HARM:
            answer = owner.post("/v1/webhook_endpoints", json={"url": "http://127.0.0.1:9/h", "name": name})
            assert answer.status_code == 200, answer.text
            for path in ("", f"/{answer.json()['id']}"):
                assert is_inert(client.get(f"/console/webhooks{path}").text, name)
