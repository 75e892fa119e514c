"""The rules of webhooks: what follows from an answer, how long the next wait is, what a secret looks like."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta, timezone

import openai
import pytest
from api import contract
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.api_errors import BadRequest
from penstock.domain.webhook import (
    BATCH_EVENT_TYPES,
    EVENT_TYPES,
    LONGEST_RETRY_AFTER_SECONDS,
    AttemptVerdict,
    DeliveryState,
    Due,
    check_secret,
    judge,
    receiver_of,
    retry_after,
    secret_of,
)
from penstock.formats import webhook
from penstock.settings import Settings

WAITS = Settings().webhook_waits_seconds
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECRETS = (secret_of(bytes(range(32))), secret_of(bytes(24)))


def due(type: str = EVENT_TYPES[0]) -> Due:
    return Due(
        id="dlv_1",
        number=1,
        tries=1,
        tenant="acme",
        endpoint="we_1",
        receiver="hooks.example:443",
        enabled=True,
        url="https://hooks.example/",
        sealed=(),
        event="evt_1",
        type=type,
        object="batch_1",
        happened_at=NOW.astimezone(timezone(timedelta(hours=5))),
        test=False,
        claimed_at=datetime.now(timezone(timedelta(hours=-3))),
    )


def test_the_schedule_is_ten_attempts_over_three_days() -> None:
    assert WAITS == (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)


@given(st.integers(100, 599) | st.none(), st.floats(0, 1e9) | st.none(), st.integers(1, 12), st.floats(0, 1))
def test_every_answer_has_one_consequence(status: int | None, asked: float | None, tries: int, chance: float) -> None:
    verdict = judge(status, asked, tries, WAITS, chance)
    if status is not None and 200 <= status < 300:
        assert verdict == AttemptVerdict(DeliveryState.DELIVERED)
    elif status == 410:
        assert verdict == AttemptVerdict(DeliveryState.FAILED, gone=True)
    elif tries >= len(WAITS):
        assert verdict == AttemptVerdict(DeliveryState.FAILED)
    else:
        least = WAITS[tries]
        if status in (429, 503) and asked is not None:
            least = max(least, min(asked, LONGEST_RETRY_AFTER_SECONDS))
        assert verdict.state is DeliveryState.PENDING
        assert least <= verdict.wait_seconds <= max(least, WAITS[tries] * 1.1)


def test_retry_after_is_seconds_or_a_date_and_anything_else_is_nothing() -> None:
    assert retry_after("120", NOW) == 120
    assert retry_after("Wed, 25 Nov 2026 12:02:00 GMT", NOW) == 120
    assert retry_after("Wed, 25 Nov 2026 11:00:00 GMT", NOW) == 0
    assert retry_after("9" * 5_000, NOW) == 999_999_999
    for odd in (None, "", "soon", "-5", "1.5", "Wed, 99 Nov 2026 12:02:00 GMT"):
        assert retry_after(odd, NOW) is None


def test_a_secret_is_prefix_and_base64_of_24_to_64_bytes() -> None:
    for length in (24, 32, 64):
        assert check_secret(secret_of(bytes(length)), "secret")
    for wrong in ("", "whsec_", "whsec_!!!", secret_of(bytes(23)), secret_of(bytes(65)), "sec_" + "A" * 32, "A" * 32):
        with pytest.raises(BadRequest):
            check_secret(wrong, "secret")


def test_a_receiver_is_host_and_port() -> None:
    assert receiver_of("https://Hooks.Example/a?b") == "hooks.example:443"
    assert receiver_of("http://127.0.0.1:8080/") == "127.0.0.1:8080"
    assert receiver_of("http://hooks.example") == "hooks.example:80"


@pytest.mark.parametrize("type", BATCH_EVENT_TYPES)
def test_each_event_is_what_openais_schema_says(type: str) -> None:
    event = json.loads(webhook.body(due(type)))
    contract.check("WebhookBatch" + type.removeprefix("batch.").capitalize(), event)
    assert event == {
        "id": "evt_1",
        "object": "event",
        "created_at": int(NOW.timestamp()),
        "type": type,
        "data": {"id": "batch_1"},
        "timestamp": "2026-11-25T12:00:00.000Z",
    }


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("type", EVENT_TYPES)
def test_openais_python_sdk_accepts_it_under_either_secret(type: str, secret: str) -> None:
    one = due(type)
    body = webhook.body(one)
    headers = webhook.headers(one, body, SECRETS)
    client = openai.OpenAI(api_key="unused")
    event = client.webhooks.unwrap(body, headers, secret=secret)
    assert (event.type, event.data.id) == (type, "batch_1")
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body.replace(b"batch_1", b"batch_2"), headers, secret=secret)
    client.close()


def test_there_is_one_signature_for_each_valid_secret_the_present_one_first() -> None:
    one = due()
    headers = webhook.headers(one, webhook.body(one), SECRETS)
    content = f"evt_1.{headers['webhook-timestamp']}.".encode() + webhook.body(one)
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in SECRETS]
    signatures = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    assert headers["webhook-signature"] == " ".join(f"v1,{signature}" for signature in signatures)
    assert webhook.headers(one, webhook.body(one), SECRETS[:1])["webhook-signature"].count("v1,") == 1
