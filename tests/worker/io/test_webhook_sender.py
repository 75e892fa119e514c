"""The post sends every event to whoever wants it, at least once under one id, whatever receivers do (F16)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Any

import openai
import pytest
from pydantic import SecretStr
from store.world import World
from structlog.testing import capture_logs
from worker.receiver import HANGS, Answer, Got, Receiver

from penstock.domain.webhook import EVENT_TYPES, AttemptOutcome, Delivery, DeliveryState, Endpoint
from penstock.service.admin import health
from penstock.service.core.transaction import AsyncDatabase
from penstock.service.webhooks import endpoints, secret_keys, webhook_queue
from penstock.settings import Settings
from penstock.store.engine import async_engine
from penstock.wire.outbound import Outbound
from penstock_worker.io.webhook_sender import WebhookSender

LOOPBACK = ip_network("127.0.0.0/8")
WAITS = (0.0, 0.05, 0.1, 0.15)


@pytest.fixture
def settings(database_url: str) -> Settings:
    """A short schedule."""
    return Settings(
        database_url=database_url,
        webhook_waits_seconds=WAITS,
        webhook_timeout_seconds=10.0,
        webhook_poll_seconds=0.05,
        webhook_concurrency=24,
        webhook_tenant_concurrency=16,
        webhook_receiver_concurrency=4,
        close_grace_seconds=0.3,
        max_webhook_endpoints=1_000,
    )


@pytest.fixture
def world(database_url: str, settings: Settings) -> Iterator[World]:
    """A tenant whose batches can be ended."""
    one = World(database_url, settings)
    yield one
    one.check()
    one.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that thanks, unless told otherwise."""
    with Receiver() as one:
        yield one


Open = Callable[..., WebhookSender]


@contextmanager
def post(settings: Settings, **outbound: Any) -> Iterator[WebhookSender]:
    """An io worker's post, with a way out to loopback."""
    db = AsyncDatabase(async_engine(settings.database_url, 2), lambda hints: None)
    with WebhookSender(db, Outbound(**{"allow": (LOOPBACK,)} | outbound), settings) as one:
        yield one


def endpoint(world: World, url: str, *types: str, tenant: str = "acme") -> Endpoint:
    return world.db.run(endpoints.create, tenant, "", url, types or EVENT_TYPES, None, world.settings)


def end(world: World, *, tenant: str = "acme") -> str:
    """A batch that has ended as cancelled before it was validated."""
    batch = world.validating(tenant=tenant)
    world.cancel(batch)
    assert world.find(batch).ended
    return batch


def deliveries(world: World, tenant: str = "acme", **only: Any) -> list[Delivery]:
    found = world.db.run(webhook_queue.page, tenant, after=None, limit=1_000, **only)
    return [world.db.run(webhook_queue.get, tenant, one.id) for one in found]


def until(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return seen


def over(world: World, count: int, tenant: str = "acme") -> list[Delivery]:
    """All deliveries, once so many of them are over."""

    def look() -> list[Delivery]:
        found = deliveries(world, tenant)
        return found if sum(one.state is not DeliveryState.PENDING for one in found) >= count else []

    return until(look)


def verify(got: Got, secret: str) -> Any:
    with openai.OpenAI(api_key="unused") as client:
        return client.webhooks.unwrap(got.body, dict(got.headers), secret=secret)


def statuses(one: Delivery) -> list[int | None]:
    return [attempt.status for attempt in one.log]


def test_an_event_goes_to_each_endpoint_that_wants_it_under_its_own_id(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    first, second = endpoint(world, receiver.url("/a")), endpoint(world, receiver.url("/b"), "batch.cancelled")
    endpoint(world, receiver.url("/other"), "batch.completed")
    world.tenant("stranger")
    endpoint(world, receiver.url("/stranger"), tenant="stranger")
    batch = end(world)
    with post(settings):
        found = over(world, 2)
    event = world.one("select id from events")
    for path, one in (("/a", first), ("/b", second)):
        [got] = receiver.at(path)
        heard = verify(got, one.secret)
        assert (heard.type, heard.data.id, heard.id, got.id) == ("batch.cancelled", batch, event, event)
    assert len(receiver.got) == 2
    assert [(one.state, statuses(one), one.log[0].answer) for one in found] == [("delivered", [200], b"thanks")] * 2


def test_a_batchs_own_webhook_hears_of_that_batch_alone(world: World, settings: Settings, receiver: Receiver) -> None:
    batch = world.validating()
    wish = endpoints.wish(receiver.url("/own"), None, None, world.settings)
    world.db.run(endpoints.attach, "acme", batch, wish)
    end(world)
    world.cancel(batch)
    with post(settings):
        over(world, 1)
    assert verify(receiver.at("/own")[0], wish.secret).data.id == batch
    assert len(receiver.got) == 1
    assert world.db.run(endpoints.page, "acme", after=None, limit=9) == []


def test_a_receiver_that_fails_is_asked_again_under_the_same_id_until_it_takes_it(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    hook = endpoint(world, receiver.url("/hook"))
    receiver.answers("/hook", 500, 404, 204)
    end(world)
    with post(settings):
        [one] = over(world, 1)
    assert (one.state, statuses(one), one.attempts) == ("delivered", [500, 404, 204], 3)
    got = receiver.at("/hook")
    assert len({each.id for each in got}) == len({each.body for each in got}) == 1
    for each in got:
        verify(each, hook.secret)
    waits = [later.at - sooner.at for sooner, later in itertools.pairwise(got)]
    assert all(wait >= least for wait, least in zip(waits, WAITS[1:], strict=False))


def test_a_delivery_whose_every_attempt_failed_is_failed_and_may_be_replayed(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    endpoint(world, receiver.url("/hook"))
    receiver.answers("/hook", *[503] * len(WAITS), 200)
    end(world)
    with post(settings):
        [one] = over(world, 1)
        assert (one.state, statuses(one)) == ("failed", [503] * len(WAITS))
        assert world.db.run(webhook_queue.replay, "acme", one.id).state == "pending"
        again = until(lambda: [d for d in deliveries(world) if d.state is DeliveryState.DELIVERED])[0]
        assert statuses(again) == [503] * len(WAITS) + [200]
        assert world.db.run(webhook_queue.replay_all, "acme") == 0
        assert world.db.run(webhook_queue.replay_all, "acme", state=DeliveryState.DELIVERED) == 1
        receiver.wait("/hook", len(WAITS) + 2)
    assert len({each.id for each in receiver.got}) == 1


def test_410_disables_the_endpoint_and_gives_up_what_is_owed_to_it(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    hook = endpoint(world, receiver.url("/hook"))
    receiver.answers("/hook", 410)
    end(world)
    with post(settings):
        over(world, 1)
        assert world.db.run(endpoints.get, "acme", hook.id).disabled_as == "gone"
        end(world)
        assert len(deliveries(world)) == 1
        receiver.answers("/hook", 200)
        assert world.db.run(endpoints.change, "acme", hook.id, enabled=True).disabled_as is None
        assert world.db.run(webhook_queue.replay_all, "acme") == 1
        over(world, 1)
    assert [one.state for one in deliveries(world)] == ["delivered"]


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed(world: World, settings: Settings, receiver: Receiver, status: int) -> None:
    endpoint(world, receiver.url("/hook"))
    receiver.answers("/hook", Answer(status, {"retry-after": "1"}), 200)
    end(world)
    with post(settings):
        [one] = over(world, 1)
    first, second = receiver.at("/hook")
    assert statuses(one) == [status, 200]
    assert second.at - first.at >= 1.0


def test_a_redirect_is_a_failure_and_nobody_goes_there(world: World, settings: Settings, receiver: Receiver) -> None:
    endpoint(world, receiver.url("/hook"))
    receiver.answers("/hook", Answer(307, {"location": receiver.url("/elsewhere")}))
    end(world)
    with post(settings):
        [one] = over(world, 1)
    assert (one.state, statuses(one)) == ("failed", [307] * len(WAITS))
    assert receiver.at("/elsewhere") == []


def test_of_an_answer_without_end_only_the_first_bytes_are_read(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    endpoint(world, receiver.url("/hook"))
    receiver.answers("/hook", Answer(endless=True))
    end(world)
    with post(settings):
        [one] = over(world, 1)
    assert one.state is DeliveryState.DELIVERED
    assert one.log[0].answer == b"x" * settings.webhook_answer_kept_bytes
    assert receiver.sent_bytes < 64 * 1024 * 1024


def test_a_receiver_that_is_down_gets_its_events_once_it_is_up(world: World, settings: Settings) -> None:
    with Receiver() as down:
        port = down.port
    endpoint(world, f"http://127.0.0.1:{port}/hook")
    end(world)
    slow = settings.model_copy(update={"webhook_waits_seconds": (0.0, *[0.1] * 100)})
    with post(slow):
        until(lambda: any(one.attempts >= 2 for one in deliveries(world)))
        with Receiver(port) as up:
            up.wait("/hook")
            [one] = over(world, 1)
    assert statuses(one)[0] is None
    assert one.log[0].error == webhook_queue.NO_ANSWER
    assert one.state is DeliveryState.DELIVERED


def test_a_name_that_comes_to_resolve_to_a_private_address_is_refused_at_send(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    endpoint(world, "https://rebound.example/hook")
    end(world)
    with post(settings, allow=(), resolve=resolve):
        [one] = over(world, 1)
    assert asked == ["rebound.example"] * len(WAITS)
    assert (one.state, statuses(one)) == ("failed", [None] * len(WAITS))
    assert receiver.got == []
    assert one.log[0].error == webhook_queue.NO_ANSWER


def test_a_tenant_learns_nothing_of_what_resolves_or_answers_within_the_operators_network(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    with Receiver() as down:
        closed = down.port
    names = {"private.example": ["10.0.0.1"], "inside.example": ["127.0.0.1"]}

    async def resolve(host: str, port: int) -> list[str]:
        return names.get(host, [])

    for url in (
        "https://private.example/",
        "https://unknown.example/",
        f"http://inside.example:{closed}/",
        f"https://inside.example:{receiver.port}/",
    ):
        endpoint(world, url)
    end(world)
    with post(settings, resolve=resolve), capture_logs() as logs:
        found = over(world, 4)
    attempts = [attempt for one in found for attempt in one.log]
    assert len(attempts) == 4 * len(WAITS)
    assert {(one.status, one.milliseconds, one.error) for one in attempts} == {(None, 0, webhook_queue.NO_ANSWER)}
    reasons = {one["reason"] for one in logs if one["event"] == "webhook_not_answered"}
    assert len(reasons) == 4, "the operator is told"
    for words in ("private.example is not a public address", "could not be resolved", "connection: ", "tls: "):
        assert any(words in reason for reason in reasons)


def test_receivers_that_hang_delay_nobody_by_a_second(world: World, settings: Settings) -> None:
    settings = settings.model_copy(update={"webhook_timeout_seconds": 1.0})
    with Receiver() as good, Receiver() as bad:
        bad.answers("/hang", HANGS)
        for _ in range(40):  # by far more than there are places
            batch = world.validating()
            world.db.run(endpoints.attach, "acme", batch, endpoints.wish(bad.url("/hang"), None, None, world.settings))
            world.cancel(batch)
        world.tenant("stranger")
        endpoint(world, good.url("/stranger"), tenant="stranger")
        with post(settings) as sending:
            bad.wait("/hang", settings.webhook_receiver_concurrency)
            endpoint(world, good.url("/hook"))
            for number in range(10):
                end(world)
                began = time.monotonic()
                sending.hear("a hint")
                assert good.wait("/hook", number + 1)[-1].at - began < 1.0
                end(world, tenant="stranger")
                began = time.monotonic()
                assert good.wait("/stranger", number + 1)[-1].at - began < 1.0
            in_hand = sum(due.receiver.endswith(str(bad.port)) for due, _ in sending._in_hand.values())
            assert in_hand <= settings.webhook_receiver_concurrency
            until(lambda: bad.url("").removeprefix("http://") in sending._silent)
            until(lambda: len(sending._in_hand) == 1)  # one place is left to it, until it answers


def test_a_secret_that_was_rotated_signs_beside_the_new_one(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    old = endpoint(world, receiver.url("/hook"))
    new = world.db.run(endpoints.rotate, "acme", old.id, True, settings)
    end(world)
    with post(settings):
        over(world, 1)
        for secret in (old.secret, new.secret):
            assert verify(receiver.at("/hook")[0], secret).type == "batch.cancelled"
        world.db.run(endpoints.rotate, "acme", old.id, False, settings)
        end(world)
        over(world, 2)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        verify(receiver.at("/hook")[1], new.secret)


def test_a_secret_whose_key_is_missing_signs_nothing_until_it_is_rotated_or_the_key_is_back(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    old = endpoint(world, receiver.url("/hook"))
    end(world)
    elsewhere = settings.model_copy(update={"secret_keys": SecretStr(secret_keys.new_key())})
    with post(elsewhere), capture_logs() as logs:
        until(lambda: deliveries(world) and len(deliveries(world)[0].log) >= 1)
        until(lambda: deliveries(world)[0].state is DeliveryState.FAILED)
        assert {attempt.error for attempt in deliveries(world)[0].log} == {webhook_queue.NO_SECRET}
        assert receiver.got == []
        new = world.db.run(endpoints.rotate, "acme", old.id, True, elsewhere)
        world.db.run(webhook_queue.replay_all, "acme")
        until(lambda: len(receiver.got) == 1)
    assert verify(receiver.got[0], new.secret).type == "batch.cancelled"
    said = [one for one in logs if one["event"] == "webhook_secret_unreadable"]
    assert {(one["log_level"], one["endpoint"], one["tenant"]) for one in said} == {("error", old.id, "acme")}
    assert secret_keys.of(settings).first in said[0]["reason"]
    assert world.db.run(health.gauges, settings).counts["webhook_unsigned"] == len(WAITS)


def test_what_is_under_way_when_the_worker_ends_is_due_again_at_once_and_costs_no_attempt(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    endpoint(world, receiver.url("/hook"))
    receiver.answers("/hook", HANGS, 200)
    end(world)
    patient = settings.model_copy(update={"webhook_timeout_seconds": 60.0, "webhook_waits_seconds": (0.0,)})
    with post(patient):
        receiver.wait("/hook")
    [one] = deliveries(world)
    assert (one.state, one.attempts, one.log) == ("pending", 1, ())
    with post(patient):
        [one] = over(world, 1)
    assert (one.state, statuses(one)) == ("delivered", [200])


def test_a_claim_that_ended_is_somebody_elses_and_a_late_word_is_refused(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    endpoint(world, receiver.url("/hook"))
    end(world)
    [first] = world.db.run(webhook_queue.claim, 9, {}, {}, settings)
    assert world.db.run(webhook_queue.claim, 9, {}, {}, settings) == []
    world.sql("update deliveries set next_at = clock_timestamp()")
    [second] = world.db.run(webhook_queue.claim, 9, {}, {}, settings)
    assert (first.number, second.number) == (1, 2)
    for late in (first, second, second):
        world.db.run(webhook_queue.record, [told(late, 500 + late.number)], [])
    [one] = deliveries(world)
    assert (one.state, statuses(one)) == ("pending", [502])
    assert world.one("select value from counts where name = 'webhook_attempt'") == 1


def told(due: Any, status: int) -> Any:
    return AttemptOutcome(due.id, due.number, DeliveryState.PENDING, 60.0, due.claimed_at, status, 5, None, None)


def test_a_claim_takes_no_more_of_a_receiver_or_tenant_than_it_has_places(world: World, settings: Settings) -> None:
    for tenant in ("acme", "stranger"):
        world.tenant(tenant)
        for port in (1, 2, 3, 4, 5, 6):
            endpoint(world, f"http://127.0.0.1:{port}/{tenant}", tenant=tenant)
        for _ in range(3):
            end(world, tenant=tenant)
    taken = world.db.run(webhook_queue.claim, 99, {"127.0.0.1:1": 0, "127.0.0.1:2": 1}, {"stranger": 5}, settings)
    by_receiver = {port: sum(due.receiver == f"127.0.0.1:{port}" for due in taken) for port in range(1, 7)}
    assert by_receiver[1] == 0
    assert by_receiver[2] <= 1
    assert max(by_receiver.values()) <= settings.webhook_receiver_concurrency
    assert sum(due.tenant == "stranger" for due in taken) <= 5
    assert sum(due.tenant == "acme" for due in taken) >= 8
