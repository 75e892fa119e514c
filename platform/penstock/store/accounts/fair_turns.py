"""Fair turns: whose turn it is in a lane. Tenants take turns by tokens over weight, and being idle saves nothing up.

Start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996). A lane's clock is the start tag of what was served last; an
account that comes (back) starts there, not at what it was served long ago. The account with the least start tag is
next, and its next start tag is this one plus the tokens over its weight.

A tenant's small jobs and its batches are two accounts (domain/accounts/account.py), which share its weight while both
have work. All that was promoted into a lane is one account, `*`, whose weight leaves the lane's own work its part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from penstock.domain.accounts.account import tenant_of
from penstock.domain.work.lane import Lane

PROMOTED: Final = "*"

OWNER: Final = "case when s.inline is null then s.tenant else s.tenant || ' small' end"
"""A slice's account in its own lane."""

ACCOUNT: Final = "case when s.promoted then '*' when s.inline is null then s.tenant else s.tenant || ' small' end"
"""Who is charged for a slice, word by word as the indexes have it."""

STANDING: Final = """
    left join fair_turns own on own.model = :model and own.lane_rank = a.rank and own.tenant = a.account
    left join fair_turns clock on clock.model = :model and clock.lane_rank = a.rank and clock.tenant = ''"""
"""Joins to the accounts `a` what each was served, and its lane's clock."""

START: Final = "greatest(own.served, clock.served, 0)"

IN_TURN: Final = f"{START}, head.deadline, head.id"
"""The order of a lane's accounts: who was served least, and of those that are even whose own first slice, `head`, must
end first. Feeds and claims both go by it: else, of more accounts than are fed at once, those that are even would be fed
by some other rule, and the most urgent of them would wait for all others."""

_TURNS = text(f"""
    -- From one account to the next in the index: as many steps as there are accounts, however long their lists are.
    with recursive accounts(rank, account) as (
        select lanes.rank, first.account
        from unnest(cast(:ranks as smallint[])) as lanes(rank)
        cross join lateral (
            select {ACCOUNT} as account from slices s
            where s.model = :model and s.lane_rank = lanes.rank and s.state = 'ready'
            order by {ACCOUNT} limit 1) first
        union all
        select a.rank, next.account
        from accounts a
        cross join lateral (
            select {ACCOUNT} as account from slices s
            where s.model = :model and s.lane_rank = a.rank and s.state = 'ready' and {ACCOUNT} > a.account
            order by {ACCOUNT} limit 1) next)
    select a.rank, a.account, t.weight, {START} as start
    from accounts a {STANDING}
    left join tenants t on t.id = split_part(a.account, ' ', 1)
    cross join lateral (
        select s.deadline, s.id from slices s
        where s.model = :model and s.lane_rank = a.rank and s.state = 'ready' and {ACCOUNT} = a.account
        order by s.deadline, s.id limit 1) head
    order by a.rank, {IN_TURN}""")

_CHARGE = text("""
    -- The clock's row first, in every claim: two at once take turns. Each adds to what it finds, so neither is lost.
    insert into fair_turns (model, lane_rank, tenant, served)
    select :model, :rank, who.account, who.start + who.cost
    from unnest(cast(:accounts as text[]), cast(:starts as float8[]), cast(:costs as float8[]))
        as who(account, start, cost)
    order by who.account
    on conflict (model, lane_rank, tenant) do update set served = greatest(
        excluded.served, fair_turns.served + (
            select cost from unnest(cast(:accounts as text[]), cast(:costs as float8[])) as paid(account, cost)
            where paid.account = fair_turns.tenant))""")

_FORGET = text("""
    -- Who is behind its lane's clock starts at the clock, as one that was never there.
    delete from fair_turns where (model, lane_rank, tenant) in (
        select own.model, own.lane_rank, own.tenant
        from fair_turns own join fair_turns clock using (model, lane_rank)
        where own.tenant <> '' and clock.tenant = '' and own.served <= clock.served
        limit 1000 for no key update of own skip locked)""")


@dataclass(frozen=True)
class FairTurn:
    """An account that has ready slices in a lane: where it stands, and what it pays for a token."""

    rank: int
    account: str
    start: float
    weight: float


def turns(conn: Connection, model: str, lanes: Sequence[Lane], *, promoted_share: float) -> list[FairTurn]:
    """The accounts with ready slices in these lanes, in the order in which they are to be served."""
    rows = conn.execute(_TURNS, {"model": model, "ranks": [lane.rank for lane in lanes]}).all()
    of_tenant = Counter((row.rank, tenant_of(row.account)) for row in rows)
    weights = {row: (row.weight or 0.0) / of_tenant[row.rank, tenant_of(row.account)] for row in rows}
    own: dict[int, float] = {}
    for row, weight in weights.items():
        own[row.rank] = own.get(row.rank, 0.0) + weight
    share = min(max(promoted_share, 1e-6), 1 - 1e-6)
    return [
        FairTurn(
            row.rank,
            row.account,
            row.start,
            # So that promoted work is this part of it and the lane's own work together; alone, any weight will do.
            (own[row.rank] or 1.0) * share / (1 - share) if row.account == PROMOTED else weights[row],
        )
        for row in rows
    ]


def charge(conn: Connection, model: str, served: Mapping[FairTurn, float], clock: float) -> None:
    """Accounts of one lane were served so many tokens each, the last at this start tag.

    The last statement of its transaction, or nearly: the next claim of the lane may wait.
    """
    accounts = [
        ("", clock, 0.0),
        *((turn.account, turn.start, tokens / turn.weight) for turn, tokens in served.items()),
    ]
    names, starts, costs = zip(*accounts, strict=True)
    values = {"accounts": list(names), "starts": list(starts), "costs": list(costs)}
    conn.execute(_CHARGE, values | {"model": model, "rank": next(iter(served)).rank})


def forget(conn: Connection) -> int:
    """Delete rows that say no more than their absence would."""
    return conn.execute(_FORGET).rowcount
