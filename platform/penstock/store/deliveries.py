"""Deliveries: what is owed to webhook endpoints, who tries it at the moment, and how each attempt went.

A claim counts an attempt and puts the row's next time to the end of the claim. So nobody has to reap: what a dead
process had in hand is due again by itself, and its late word is refused, since the count has moved on. Lock order:
the endpoint, then its deliveries by id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from penstock.domain.webhook import (
    Attempt,
    AttemptOutcome,
    Delivery,
    DeliveryState,
    Due,
    RecordedAttempt,
    WebhookBacklog,
)
from penstock.store import cursors
from penstock.store.cursors import ListPlace

_OWE = text("""
    -- An event is owed to an endpoint once, however often somebody says so: to the tenant's own, and to the batch's.
    insert into deliveries (id, tenant, endpoint, receiver, event, type, object, happened_at)
    select 'dlv_' || substr(e.id, 5) || '_' || substr(w.id, 4), e.tenant, w.id, w.receiver, e.id, e.type,
           coalesce(e.batch, e.tenant), e.created_at
    from events e
    cross join lateral (
        select * from webhook_endpoints where tenant = e.tenant and batch is null
        union all
        select * from webhook_endpoints where tenant = e.tenant and batch = e.batch) w
    where e.id = any(cast(:events as text[])) and w.disabled_as is null and e.type = any(w.event_types)
    on conflict (event, endpoint) do nothing
    returning object""")

_INSERT_TEST = text("""
    insert into deliveries (id, tenant, endpoint, receiver, event, type, object, happened_at, test)
    select :id, tenant, id, receiver, :event, :type, :object, now(), true
    from webhook_endpoints where tenant = :tenant and id = :endpoint""")

_CLAIM = text("""
    -- Of each receiver the oldest few that are due, as many as it may have in hand; of each tenant likewise. Receivers
    -- are found by skipping through the index, so a long backlog of one costs one step.
    with recursive receivers as (
        (select receiver from deliveries where state = 'pending' order by receiver limit 1)
        union all
        select (select d.receiver from deliveries d where d.state = 'pending' and d.receiver > r.receiver
                order by d.receiver limit 1)
        from receivers r where r.receiver is not null),
    room as (
        select r.receiver, greatest(0, coalesce(b.room, :each)) as places
        from receivers r
        left join unnest(cast(:receivers as text[]), cast(:rooms as int[])) as b(receiver, room) using (receiver)
        where r.receiver is not null),
    picked as (
        select pick.* from room
        cross join lateral (
            select d.id, d.tenant, d.next_at from deliveries d
            where d.state = 'pending' and d.receiver = room.receiver and d.next_at <= clock_timestamp()
            order by d.next_at limit room.places
            for no key update of d skip locked) pick),
    fair as (
        select p.id, p.next_at, coalesce(t.room, :each_tenant) as places,
               row_number() over (partition by p.tenant order by p.next_at) as place
        from picked p
        left join unnest(cast(:tenants as text[]), cast(:tenant_rooms as int[])) as t(tenant, room) using (tenant)),
    best as (
        select id from fair where place <= places order by next_at limit :limit)
    update deliveries d set attempts = d.attempts + 1, next_at = clock_timestamp() + :lease
    from best, webhook_endpoints e
    where d.id = best.id and e.id = d.endpoint
    returning d.id, d.attempts as number, d.attempts - d.attempts_before as tries, d.tenant, d.endpoint, d.receiver,
              e.disabled_as is null as enabled, e.url, e.secret,
              case when e.old_until > clock_timestamp() then e.old_secret end as old_secret,
              d.event, d.type, d.object, d.happened_at, d.test, clock_timestamp() as claimed_at""")

_RECORD = text("""
    -- What came of attempts, if they are still the last ones; what is recorded already stays. May be repeated.
    with told as (
        select * from unnest(
            cast(:ids as text[]), cast(:numbers as int[]), cast(:states as text[]), cast(:waits as float8[]),
            cast(:ats as timestamptz[]), cast(:statuses as int[]), cast(:milliseconds as int[]),
            cast(:answers as bytea[]), cast(:errors as text[]))
            as told(id, number, state, wait, at, status, milliseconds, answer, error)),
    kept as (
        select d.id from deliveries d join told on told.id = d.id
        where d.state = 'pending' and d.attempts = told.number
          and not exists (select from delivery_attempts a where a.delivery = d.id and a.number = told.number)
        order by d.id for no key update of d),
    noted as (
        insert into delivery_attempts (delivery, number, at, status, milliseconds, answer, error)
        select told.id, told.number, told.at, told.status, told.milliseconds, told.answer, told.error
        from told join kept using (id)
        on conflict do nothing)
    update deliveries d set
        state = told.state,
        next_at = case when told.state = 'pending' then clock_timestamp() + told.wait * interval '1 s' end,
        ended_at = case when told.state <> 'pending' then clock_timestamp() end
    from told join kept using (id)
    where d.id = kept.id
    returning d.id, d.state, told.milliseconds, d.ended_at - d.happened_at as age""")

_PUT_BACK = text("""
    -- An attempt that was broken off counts, for it may have arrived, but costs no wait.
    update deliveries d set next_at = clock_timestamp(), attempts_before = d.attempts_before + 1
    from unnest(cast(:ids as text[]), cast(:numbers as int[])) as back(id, number)
    where d.id = back.id and d.state = 'pending' and d.attempts = back.number""")

_FAIL_ALL = text("""
    -- Its endpoint is no more: nothing of it is tried again.
    with mine as (
        select id from deliveries where endpoint = :endpoint and state = 'pending' order by id for no key update)
    update deliveries d set state = 'failed', next_at = null, ended_at = clock_timestamp()
    from mine where d.id = mine.id""")

_MOVE = text("""
    with mine as (
        select id from deliveries where endpoint = :endpoint and state = 'pending' order by id for no key update)
    update deliveries d set receiver = :receiver from mine where d.id = mine.id""")

_REPLAY = text("""
    -- The same event under the same webhook-id, with the whole schedule before it; only for endpoints that are there.
    with again as (
        select d.id from deliveries d join webhook_endpoints e on e.id = d.endpoint
        where d.tenant = :tenant and d.state <> 'pending' and not d.test and e.disabled_as is null
          and (cast(:id as text) is null or d.id = :id)
          and (cast(:endpoint as text) is null or d.endpoint = :endpoint)
          and (cast(:batch as text) is null or d.object = :batch)
          and (cast(:event as text) is null or d.event = :event)
          and (cast(:state as text) is null or d.state = :state)
          and (cast(:since as timestamptz) is null or d.created_at >= :since)
          and (cast(:until as timestamptz) is null or d.created_at < :until)
        order by d.id limit :limit
        for no key update of d)
    update deliveries d set state = 'pending', next_at = clock_timestamp(), ended_at = null,
                            attempts_before = d.attempts, receiver = e.receiver
    from again, webhook_endpoints e where d.id = again.id and e.id = d.endpoint
    returning d.id""")

_SELECT = """
    select d.*, a.number, a.at, a.status, a.milliseconds, a.answer, a.error
    from deliveries d left join delivery_attempts a on a.delivery = d.id"""

_GET = text(_SELECT + " where d.tenant = :tenant and d.id = :id order by a.number")

_PAGE = text(
    _SELECT
    + """
      and a.number = (select max(number) from delivery_attempts l where l.delivery = d.id)
    where d.tenant = :tenant
      and (cast(:endpoint as text) is null or d.endpoint = :endpoint)
      and (cast(:batch as text) is null or d.object = :batch)
      and (cast(:event as text) is null or d.event = :event)
      and (cast(:state as text) is null or d.state = :state)
      and (cast(:after_at as timestamptz) is null or (d.created_at, d.id) < (:after_at, :after))
    order by d.created_at desc, d.id desc limit :limit"""
)

_TESTED = text("""
    select exists (select from deliveries where endpoint = :endpoint and test and state = 'pending')""")

_BACKLOG = text("""
    select count(*)::int as pending, (count(*) filter (where next_at <= clock_timestamp()))::int as due,
           coalesce(extract(epoch from clock_timestamp() - min(next_at)), 0)::float8 as late_seconds
    from deliveries where state = 'pending'""")


def owe(conn: Connection, events: Sequence[str]) -> set[str]:
    """Owe events to all endpoints that want to hear of them; the batches of which something is owed."""
    return {row.object for row in conn.execute(_OWE, {"events": list(events)})}


def insert_test(conn: Connection, tenant: str, *, id: str, endpoint: str, event: str, type: str, object: str) -> None:
    """Owe a sample event to one endpoint."""
    values = {"tenant": tenant, "id": id, "endpoint": endpoint, "event": event, "type": type, "object": object}
    conn.execute(_INSERT_TEST, values)


def claim(
    conn: Connection,
    *,
    limit: int,
    each: int,
    each_tenant: int,
    rooms: Mapping[str, int],
    tenant_rooms: Mapping[str, int],
    lease: timedelta,
) -> list[Due]:
    """Take up to `limit` due deliveries for one attempt each.

    A receiver has `each` places and a tenant `each_tenant`, or as many as `rooms` and `tenant_rooms` say.
    """
    values = {
        "limit": limit,
        "each": each,
        "each_tenant": each_tenant,
        "receivers": list(rooms),
        "rooms": list(rooms.values()),
        "tenants": list(tenant_rooms),
        "tenant_rooms": list(tenant_rooms.values()),
        "lease": lease,
    }
    return [
        Due(
            id=row.id,
            number=row.number,
            tries=row.tries,
            tenant=row.tenant,
            endpoint=row.endpoint,
            receiver=row.receiver,
            enabled=row.enabled,
            url=row.url,
            sealed=(row.secret,) if row.old_secret is None else (row.secret, row.old_secret),
            event=row.event,
            type=row.type,
            object=row.object,
            happened_at=row.happened_at,
            test=row.test,
            claimed_at=row.claimed_at,
        )
        for row in conn.execute(_CLAIM, values)
    ]


def record(conn: Connection, told: Sequence[AttemptOutcome]) -> list[RecordedAttempt]:
    """Record attempts; those that somebody else has taken over meanwhile are missing from the answer."""
    values = {
        "ids": [one.id for one in told],
        "numbers": [one.number for one in told],
        "states": [str(one.state) for one in told],
        "waits": [one.wait_seconds for one in told],
        "ats": [one.at for one in told],
        "statuses": [one.status for one in told],
        "milliseconds": [one.milliseconds for one in told],
        "answers": [one.answer for one in told],
        "errors": [one.error for one in told],
    }
    rows = conn.execute(_RECORD, values)
    return [RecordedAttempt(row.id, DeliveryState(row.state), row.milliseconds, row.age) for row in rows]


def put_back(conn: Connection, claims: Sequence[tuple[str, int]]) -> None:
    """Give back attempts (delivery, number) that were broken off: they are due again at once."""
    values = {"ids": [id for id, _ in claims], "numbers": [number for _, number in claims]}
    conn.execute(_PUT_BACK, values)


def fail_all(conn: Connection, endpoint: str) -> int:
    """Give up what is owed to an endpoint that is disabled; its row is locked."""
    return conn.execute(_FAIL_ALL, {"endpoint": endpoint}).rowcount


def move(conn: Connection, endpoint: str, receiver: str) -> None:
    """What is owed to an endpoint goes to another receiver, since its url has changed; its row is locked."""
    conn.execute(_MOVE, {"endpoint": endpoint, "receiver": receiver})


def replay(
    conn: Connection,
    tenant: str,
    *,
    limit: int,
    id: str | None = None,
    endpoint: str | None = None,
    batch: str | None = None,
    event: str | None = None,
    state: DeliveryState | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Owe ended deliveries again, all that is given being so; how many."""
    values = {
        "tenant": tenant,
        "limit": limit,
        "id": id,
        "endpoint": endpoint,
        "batch": batch,
        "event": event,
        "state": state,
        "since": since,
        "until": until,
    }
    return len(conn.execute(_REPLAY, values).all())


def _delivery(rows: Sequence[Row[Any]]) -> Delivery:
    row = rows[0]
    return Delivery(
        id=row.id,
        endpoint=row.endpoint,
        event=row.event,
        type=row.type,
        object=row.object,
        happened_at=row.happened_at,
        test=row.test,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        next_at=row.next_at,
        created_at=row.created_at,
        ended_at=row.ended_at,
        log=tuple(
            Attempt(
                one.number,
                one.at,
                one.status,
                one.milliseconds,
                None if one.answer is None else bytes(one.answer),
                one.error,
            )
            for one in rows
            if one.number is not None
        ),
    )


def get(conn: Connection, tenant: str, id: str) -> Delivery | None:
    """A tenant's delivery with all its attempts."""
    rows = conn.execute(_GET, {"tenant": tenant, "id": id}).all()
    return _delivery(rows) if rows else None


def page(
    conn: Connection,
    tenant: str,
    *,
    after: ListPlace | None,
    limit: int,
    endpoint: str | None = None,
    batch: str | None = None,
    event: str | None = None,
    state: DeliveryState | None = None,
) -> list[Delivery]:
    """A tenant's deliveries, newest first, each with its last attempt."""
    values = {
        "tenant": tenant,
        "limit": limit,
        "endpoint": endpoint,
        "batch": batch,
        "event": event,
        "state": state,
    }
    return [_delivery([row]) for row in conn.execute(_PAGE, values | cursors.values(after))]


def is_tested(conn: Connection, endpoint: str) -> bool:
    """Whether a test of this endpoint is under way."""
    return bool(conn.execute(_TESTED, {"endpoint": endpoint}).scalar_one())


def backlog(conn: Connection) -> WebhookBacklog:
    """What is owed now. For metrics."""
    row = conn.execute(_BACKLOG).one()
    return WebhookBacklog(row.pending, row.due, max(0.0, row.late_seconds))
