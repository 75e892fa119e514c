"""make bench-webhooks: events to a receiver that fails half the time, then to one beside a receiver that hangs.

Two facts are checked, and the run fails without them: each event is delivered, under one webhook-id; and deliveries
beside a receiver that hangs come within a second. The waits of the schedule are short here, and there are more of them:
with ten attempts, one event in a thousand would fail ten times in a row.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections import Counter
from ipaddress import ip_network
from pathlib import Path

from bench import stop
from pydantic import SecretStr
from sqlalchemy import text
from store.world import World
from worker.receiver import HANGS, Answer, Receiver

from penstock.domain.webhook import EVENT_TYPES
from penstock.service.core.transaction import AsyncDatabase
from penstock.service.webhooks import endpoints, secret_keys
from penstock.settings import Settings
from penstock.stack import postgres
from penstock.store import deliveries
from penstock.store.engine import async_engine
from penstock.store.migrate import upgrade
from penstock.wire.outbound import Outbound
from penstock_worker.io.webhook_sender import WebhookSender

WAITS = (0.0, *[0.1] * 60)


def owe(world: World, tenant: str, prefix: str, count: int) -> None:
    """So many ended jobs of a tenant, whose events are owed from now on."""
    made = text("""
        insert into batches (id, tenant, kind, inline, state, finish_as, endpoint, lane, completion_window, deadline)
        select :prefix || n, :tenant, 'job', true, 'cancelled', 'cancelled', '/v1/chat/completions', 'standard', '24h',
               now() from generate_series(1, :count) n""")
    happened = text("""
        insert into events (id, tenant, batch, type)
        select 'evt_' || id, tenant, id, 'batch.cancelled' from batches where starts_with(id, :prefix) returning id""")

    def end(tx) -> None:  # type: ignore[no-untyped-def]
        tx.conn.execute(made, {"prefix": prefix, "tenant": tenant, "count": count})
        deliveries.owe(tx.conn, [row.id for row in tx.conn.execute(happened, {"prefix": prefix})])

    world.db.run(end)


def wait(world: World, tenant: str, seconds: float) -> None:
    """Return once nothing is pending for a tenant."""
    end = time.monotonic() + seconds
    while world.one("select count(*) from deliveries where state = 'pending' and tenant = :t", t=tenant):
        assert time.monotonic() < end, "deliveries do not end"
        time.sleep(0.05)


def fails_half_the_time(world: World, settings: Settings, events: int, seed: int) -> None:
    """Every event is delivered under one id, however often the receiver fails."""
    chance = random.Random(seed)
    with Receiver() as receiver:
        script = [Answer(503 if chance.random() < 0.5 else 200) for _ in range(events * 4)]
        receiver.answers("/hook", *script, 200)
        world.db.run(endpoints.create, "acme", "", receiver.url("/hook"), EVENT_TYPES, None, settings)
        owe(world, "acme", "job_half", events)
        began = time.monotonic()
        with WebhookSender(AsyncDatabase(async_engine(settings.database_url, 2), lambda _: None), out(), settings):
            wait(world, "acme", 3_600)
        seconds = time.monotonic() - began
        attempts = Counter(got.id for got in receiver.got)
    delivered = world.one("select count(*) from deliveries where state = 'delivered' and tenant = 'acme'")
    assert delivered == len(attempts) == events, f"{delivered} of {events} delivered, under {len(attempts)} ids"
    total = attempts.total()
    print(f"{events:,} events, {total:,} attempts, the most for one {max(attempts.values())}: {seconds:.1f} s")
    print(f"{events / seconds:.0f} events/s, {total / seconds:.0f} attempts/s; each event under one webhook-id")


def beside_one_that_hangs(world: World, settings: Settings, hanging: int, others: int) -> None:
    """A receiver that gives no answer delays nobody else."""
    world.tenant("hung")
    world.tenant("quick")
    delays = []
    with Receiver() as good, Receiver() as bad:
        bad.answers("/hang", HANGS)
        world.db.run(endpoints.create, "hung", "", bad.url("/hang"), EVENT_TYPES, None, settings)
        world.db.run(endpoints.create, "quick", "", good.url("/hook"), EVENT_TYPES, None, settings)
        owe(world, "hung", "job_hung", hanging)
        with WebhookSender(AsyncDatabase(async_engine(settings.database_url, 2), lambda _: None), out(), settings):
            bad.wait("/hang")
            for number in range(others):
                began = time.monotonic()
                owe(world, "quick", f"job_quick{number}x", 1)  # nobody hints
                delays.append(good.wait("/hook", number + 1)[-1].at - began)
    assert max(delays) < 1.0, f"a delivery came after {max(delays):.2f} s"
    print(f"beside {hanging:,} events for a receiver that hangs: {others} deliveries to another, from the event on")
    print(f"median {statistics.median(delays):.3f} s, the slowest {max(delays):.3f} s, without a hint")


def out() -> Outbound:
    """A way out to loopback."""
    return Outbound([ip_network("127.0.0.0/8")])


def main() -> None:
    """Both, one after the other, on a Postgres of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--hanging", type=int, default=1_000)
    parser.add_argument("--others", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ps-") as name:
        folder = Path(name)
        with postgres.running(folder / "pg", folder / "s", folder / "pg.log") as url:
            upgrade(url)
            keys = SecretStr(secret_keys.new_key())
            settings = Settings(database_url=url, webhook_waits_seconds=WAITS, secret_keys=keys)
            world = World(url, settings)
            fails_half_the_time(world, settings, asked.events, asked.seed)
            beside_one_that_hangs(world, settings, asked.hanging, asked.others)
            world.close()


if __name__ == "__main__":
    stop.orderly(main)
