"""Webhook endpoints and deliveries over HTTP: as OpenAI's SDK asks for them, each tenant's own, secrets told once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import Any

import httpx
import openai
import pytest
from api import live
from api.live import KEY, batch_of, chat, create, error, serving, upload
from structlog.testing import capture_logs
from worker.receiver import Receiver

from penstock.domain.webhook import EVENT_TYPES, secret_of
from penstock.service.core.transaction import AsyncDatabase, Database
from penstock.settings import Settings
from penstock.store.engine import async_engine
from penstock.wire.outbound import Outbound
from penstock_worker.io.webhook_sender import WebhookSender

OWN = secret_of(bytes(range(32)))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Loopback is the operator's own network; few endpoints."""
    return settings.model_copy(
        update={
            "outbound_allow": "127.0.0.0/8",
            "max_webhook_endpoints": 3,
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
def post(settings: Settings) -> Iterator[WebhookSender]:
    """What an io worker sends with."""
    db = AsyncDatabase(async_engine(settings.database_url, 2), lambda hints: None)
    with WebhookSender(db, Outbound([ip_network("127.0.0.0/8")]), settings) as one:
        yield one


@pytest.fixture
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with live.sdk(url, max_retries=0) as one:
        yield one


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_openais_sdk_makes_changes_rotates_tests_lists_and_deletes_an_endpoint(
    sdk: openai.OpenAI, receiver: Receiver, post: WebhookSender
) -> None:
    made = sdk.webhooks.create(name="ours", url=receiver.url("/hook"), event_types=["batch.completed", "batch.failed"])
    assert made.signing_secret.startswith("whsec_")
    seen = sdk.webhooks.retrieve(made.id)
    assert (seen.name, seen.url, seen.object) == ("ours", receiver.url("/hook"), "webhook_endpoint")
    assert seen.event_types == ["batch.completed", "batch.failed"]
    assert seen.signing_secret_hint == f"whsec_…{made.signing_secret[-4:]}"
    assert not hasattr(seen, "signing_secret")
    tested = sdk.webhooks.test(made.id, event_type="batch.failed")
    assert (tested.status_code, tested.success, tested.event_type) == (200, True, "batch.failed")
    got = receiver.at("/hook")[0]
    assert sdk.webhooks.unwrap(got.body, dict(got.headers), secret=made.signing_secret).type == "batch.failed"
    assert sdk.webhooks.update(made.id, name="mine", event_types=["batch.expired"]).name == "mine"
    rotated = sdk.webhooks.rotate_secret(made.id)
    assert rotated.signing_secret != made.signing_secret
    assert [one.id for one in sdk.webhooks.list()] == [made.id]
    assert sdk.webhooks.list().data[0].event_types == ["batch.expired"]
    assert sdk.webhooks.event_types.list().data == list(EVENT_TYPES)
    assert sdk.webhooks.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.webhooks.retrieve(made.id)


def test_rotate_signs_with_both_secrets_and_rotate_secret_with_the_new_one(
    client: httpx.Client, sdk: openai.OpenAI, receiver: Receiver, post: WebhookSender
) -> None:
    made = ok(client.post("/v1/webhook_endpoints", json={"url": receiver.url("/hook"), "secret": OWN}))
    assert made["signing_secret"] == OWN
    new = ok(client.post(f"/v1/webhook_endpoints/{made['id']}/rotate"))["signing_secret"]
    sdk.webhooks.test(made["id"], event_type="batch.completed")
    newest = sdk.webhooks.rotate_secret(made["id"], keep_old_secret_active_for_24_hours=False).signing_secret
    sdk.webhooks.test(made["id"], event_type="batch.completed")
    first, second = receiver.at("/hook")
    for got, secrets in ((first, (OWN, new)), (second, (newest,))):
        for secret in secrets:
            sdk.webhooks.unwrap(got.body, dict(got.headers), secret=secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        sdk.webhooks.unwrap(second.body, dict(second.headers), secret=new)


def test_a_test_says_what_the_endpoint_answered_or_why_there_was_no_answer(
    client: httpx.Client, receiver: Receiver, post: WebhookSender
) -> None:
    receiver.answers("/hook", 503)
    made = ok(client.post("/v1/webhook_endpoints", json={"url": receiver.url("/hook")}))
    tested = ok(client.post(f"/v1/webhook_endpoints/{made['id']}/test"))
    assert tested["status_code"] == 503
    delivery = ok(client.get(f"/v1/webhook_deliveries/{tested['delivery_id']}"))
    assert (delivery["test"], delivery["status"], delivery["attempts"]) == (True, "failed", 1)
    assert delivery["payload"].encode() == receiver.at("/hook")[0].body
    error(client.post(f"/v1/webhook_deliveries/{delivery['id']}/replay"), 409)
    ok(client.post(f"/v1/webhook_endpoints/{made['id']}", json={"url": "http://127.0.0.1:1/"}))
    refused = error(client.post(f"/v1/webhook_endpoints/{made['id']}/test"), 400)
    assert refused["code"] == "endpoint_unreachable"
    ok(client.post(f"/v1/webhook_endpoints/{made['id']}", json={"enabled": False}))
    error(client.post(f"/v1/webhook_endpoints/{made['id']}/test"), 409)


def test_a_batch_and_a_job_have_webhooks_of_their_own_whose_secret_is_told_once(
    client: httpx.Client, sdk: openai.OpenAI, receiver: Receiver, post: WebhookSender, model: str
) -> None:
    batch = create(client, upload(client)["id"], webhook={"url": receiver.url("/batch")})
    asked = {"model": model, "body": chat(), "webhook": {"url": receiver.url("/job"), "events": ["batch.cancelled"]}}
    job = ok(client.post("/v1/jobs", json=asked))
    for one, kind in ((batch, "batches"), (job, "jobs")):
        assert one["webhook"]["secret"].startswith("whsec_")
        seen = ok(client.get(f"/v1/{kind}/{one['id']}"))["webhook"]
        assert seen == one["webhook"] | {"secret": None}
        assert ok(client.get(f"/v1/webhook_endpoints/{seen['id']}"))["batch_id"] == one["id"]
        assert ok(client.get(f"/v1/{kind}"))["data"][0]["webhook"] is None
        ok(client.post(f"/v1/{kind}/{one['id']}/cancel"))
    assert ok(client.get("/v1/webhook_endpoints"))["data"] == []
    for path, one in (("/batch", batch), ("/job", job)):
        got = receiver.wait(path)[0]
        event = sdk.webhooks.unwrap(got.body, dict(got.headers), secret=one["webhook"]["secret"])
        assert (event.type, event.data.id) == ("batch.cancelled", one["id"])
    assert len(receiver.got) == 2


def test_a_repeated_create_makes_no_second_webhook_and_tells_no_secret_that_signs_nothing(
    client: httpx.Client, receiver: Receiver
) -> None:
    body = batch_of(upload(client)["id"]) | {"webhook": {"url": receiver.url("/hook")}}
    first, second = (ok(client.post("/v1/batches", json=body, headers={"idempotency-key": "once"})) for _ in range(2))
    assert first["webhook"]["secret"]
    assert second["webhook"] == first["webhook"] | {"secret": None}
    own = create(client, body["input_file_id"], webhook={"url": receiver.url("/hook"), "secret": OWN})
    assert own["webhook"]["secret"] is None, "its caller knows it"


WRONG = [
    ({}, "url"),
    ({"url": 7}, "url"),
    ({"url": "hooks.example"}, "url"),
    ({"url": "ftp://hooks.example"}, "url"),
    ({"url": "https://user:word@hooks.example"}, "url"),
    ({"url": "http://169.254.169.254/latest"}, "url"),
    ({"url": "https://10.0.0.1/"}, "url"),
    ({"url": "https://[::1]/"}, "url"),
    ({"url": "https://127.0.0.1/" + "a" * 5_000}, "url"),
    ({"url": "http://127.0.0.1/", "name": "n" * 201}, "name"),
    ({"url": "http://127.0.0.1/", "name": "\0"}, "name"),
    ({"url": "http://127.0.0.1/", "event_types": []}, "event_types"),
    ({"url": "http://127.0.0.1/", "event_types": ["batch.begun"]}, "event_types[0]"),
    ({"url": "http://127.0.0.1/", "secret": "short"}, "secret"),
    ({"url": "http://127.0.0.1/", "more": 1}, "more"),
]


def test_a_wrong_endpoint_is_refused_and_named(client: httpx.Client, model: str, subtests: pytest.Subtests) -> None:
    for asked, param in WRONG:
        with subtests.test(asked=str(asked)[:80]):
            assert error(client.post("/v1/webhook_endpoints", json=asked), 400)["param"] == param
    for asked, param in WRONG:
        own = {"event_types": "events"}
        if "name" in asked:
            continue
        webhook = {own.get(name, name): value for name, value in asked.items()}
        with subtests.test(webhook=str(webhook)[:80]):
            refused = client.post("/v1/jobs", json={"model": model, "body": chat(), "webhook": webhook})
            assert error(refused, 400)["param"] == "webhook." + param.replace("event_types", "events")
    assert ok(client.get("/v1/webhook_endpoints"))["data"] == []
    assert ok(client.get("/v1/jobs"))["data"] == []


def test_a_tenant_has_so_many_endpoints_also_when_they_are_made_at_once(
    client: httpx.Client, stranger: httpx.Client
) -> None:
    def make(_: int) -> int:
        return client.post("/v1/webhook_endpoints", json={"url": "http://127.0.0.1/"}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(make, range(8))) == [200] * 3 + [429] * 5
    ok(stranger.post("/v1/webhook_endpoints", json={"url": "http://127.0.0.1/"}))
    first = ok(client.get("/v1/webhook_endpoints", params={"limit": 2}))
    rest = ok(client.get("/v1/webhook_endpoints", params={"after": first["last_id"]}))
    assert (len(first["data"]), first["has_more"], len(rest["data"]), rest["has_more"]) == (2, True, 1, False)
    ok(client.delete(f"/v1/webhook_endpoints/{first['first_id']}"))
    assert make(0) == 200


def test_nobody_sees_or_touches_what_is_anothers(
    client: httpx.Client, stranger: httpx.Client, receiver: Receiver, post: WebhookSender
) -> None:
    made = ok(client.post("/v1/webhook_endpoints", json={"url": receiver.url("/hook")}))
    own = create(client, upload(client)["id"], webhook={"url": receiver.url("/own")})
    client.post(f"/v1/batches/{own['id']}/cancel")
    receiver.wait("/hook")
    receiver.wait("/own")
    delivery = ok(client.get("/v1/webhook_deliveries"))["data"][0]
    for id in (made["id"], own["webhook"]["id"]):
        path = f"/v1/webhook_endpoints/{id}"
        for method, more in (("GET", ""), ("POST", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/test")):
            error(stranger.request(method, path + more, json={} if method == "POST" else None), 404)
    error(stranger.get(f"/v1/webhook_deliveries/{delivery['id']}"), 404)
    error(stranger.post(f"/v1/webhook_deliveries/{delivery['id']}/replay"), 404)
    assert ok(stranger.get("/v1/webhook_deliveries"))["data"] == []
    assert ok(stranger.get("/v1/webhook_endpoints"))["data"] == []
    for status in ("failed", "delivered"):
        assert ok(stranger.post("/v1/webhook_deliveries/replay", json={"status": status}))["count"] == 0
    with httpx.Client(base_url=client.base_url, trust_env=False) as nobody:
        for path in ("/v1/webhook_endpoints", "/v1/webhook_deliveries", "/v1/webhook_event_types"):
            error(nobody.get(path), 401)
    assert json.dumps(made["signing_secret"]) not in client.get("/v1/webhook_endpoints").text


def test_the_log_is_filtered_and_a_range_of_it_is_replayed(
    client: httpx.Client, receiver: Receiver, post: WebhookSender
) -> None:
    good = ok(client.post("/v1/webhook_endpoints", json={"url": receiver.url("/good")}))
    bad = ok(client.post("/v1/webhook_endpoints", json={"url": receiver.url("/bad")}))
    receiver.answers("/bad", 500)
    file = upload(client)["id"]
    batches = [create(client, file)["id"] for _ in range(3)]
    for batch in batches:
        client.post(f"/v1/batches/{batch}/cancel")
    receiver.wait("/good", 3)
    receiver.wait("/bad", 6)

    def listed(**params: str) -> list[dict[str, Any]]:
        return ok(client.get("/v1/webhook_deliveries", params=params))["data"]

    while listed(status="pending"):
        pass
    assert {one["endpoint_id"] for one in listed(status="delivered")} == {good["id"]}
    assert {one["endpoint_id"] for one in listed(status="failed")} == {bad["id"]}
    assert [one["batch_id"] for one in listed(endpoint=bad["id"])] == batches[::-1]
    [first, second] = listed(batch=batches[0])
    assert first["event_id"] == second["event_id"] == receiver.at("/good")[0].id
    assert {one["id"] for one in listed(event=first["event_id"])} == {first["id"], second["id"]}
    assert listed(event="evt_none") == []
    failed = ok(client.get(f"/v1/webhook_deliveries/{listed(status='failed')[0]['id']}"))
    assert [(one["number"], one["status_code"], one["answer"]) for one in failed["log"]] == [
        (1, 500, "thanks"),
        (2, 500, "thanks"),
    ]
    assert listed(status="failed")[0]["log"] == failed["log"][1:]
    error(client.get("/v1/webhook_deliveries", params={"status": "lost"}), 400)
    receiver.answers("/bad", 200)

    def replay(**asked: Any) -> int:
        return ok(client.post("/v1/webhook_deliveries/replay", json=asked))["count"]

    assert replay(created_before=failed["created_at"] - 3_600) == 0
    assert replay(batch=batches[0], created_after=failed["created_at"] - 3_600) == 1
    assert replay(endpoint_id=bad["id"], event=listed(batch=batches[1])[0]["event_id"]) == 1
    error(client.post("/v1/webhook_deliveries/replay"), 400)
    assert replay() == 1
    receiver.wait("/bad", 9)
    while listed(status="pending"):
        pass
    assert len(listed(status="delivered")) == 6
    assert len({one.id for one in receiver.at("/bad")}) == 3
    ok(client.post(f"/v1/webhook_deliveries/{first['id']}/replay"))
    ok(client.delete(f"/v1/webhook_endpoints/{good['id']}"))
    assert replay(status="delivered", endpoint_id=good["id"]) == 0


def test_where_nothing_is_allowed_loopback_is_refused(settings: Settings, db: Database) -> None:
    with (
        serving(settings.model_copy(update={"outbound_allow": ""})) as url,
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}, trust_env=False) as client,
    ):
        for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "2130706433"):
            refused = client.post("/v1/webhook_endpoints", json={"url": f"https://{host}/"})
            assert error(refused, 400)["code"] == "url_not_allowed"


def test_every_refused_address_has_one_answer_and_the_log_has_the_reason(client: httpx.Client, model: str) -> None:
    asked = [
        "https://10.0.0.1/",  # private
        "https://[fd00::1]/",
        "https://169.254.169.254/",
        "https://nowhere.invalid/",  # does not resolve (RFC 6761)
        "http://8.8.8.8/",  # not by https
        "https://8.8.8.8:22/",  # not on that port
    ]
    with capture_logs() as logs:
        answers = [error(client.post("/v1/webhook_endpoints", json={"url": url}), 400) for url in asked]
        for url in asked:
            own = client.post("/v1/jobs", json={"model": model, "body": chat(), "webhook": {"url": url}})
            answers.append(error(own, 400) | {"param": "url"})
    assert answers[1:] == answers[:-1]
    assert answers[0]["code"] == "url_not_allowed"
    reasons = [line["reason"] for line in logs if line["event"] == "url_refused"]
    assert len(reasons) == 2 * len(asked)
    assert len(set(reasons)) == len(asked)


def test_the_page_describes_every_body(client: httpx.Client) -> None:
    page = client.get("/openapi.json").json()
    assert {"CreateEndpoint", "ChangeEndpoint", "RotateSecret", "TestEndpoint", "BatchWebhook", "ReplayDeliveries"} <= {
        *page["components"]["schemas"]
    }
