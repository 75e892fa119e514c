"""The history checker: what was accepted came back exactly once, and nothing happened that may not happen.

    verdict = judge(url, accepted, {tenant: client}, blobs, journal)
    assert not verdict.breaches

It looks after the fact, when every batch has ended: at the files as their tenants see them, at the rows and the trail
of moves in the database, at the blobs on disk, and at the journal of the engines. A breach is a sentence.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import openai
import psycopg
from e2e.live import Client, said
from faults import panel_history
from faults.panel_history import Spoken
from faults.panels import Panel
from store import invariants

_REFUSED: Final = re.compile(r"\[\[status (\d+)\]\]")
_NOTED_CHARACTERS: Final = 80
_MOST_LISTED: Final = 5
ENDS: Final = ("completed", "cancelled", "expired")
UNANSWERED: Final = {"cancelled": "batch_cancelled", "expired": "batch_expired"}


@dataclass(frozen=True)
class Line:
    """One line that was accepted: no other line of the load has this text, in its first 80 characters."""

    custom_id: str
    text: str
    panel: Panel | None = None
    """The ensemble that it asks."""

    @property
    def poison(self) -> bool:
        """Whether it kills every engine that is asked."""
        return "[[die]]" in self.text

    @property
    def refused(self) -> int | None:
        """The status with which the engine refuses it, if it does."""
        found = _REFUSED.search(self.text)
        return int(found[1]) if found else None

    @property
    def questions(self) -> int:
        """How many it takes, if nothing fails."""
        return len(self.panel.asked(self.text)) if self.panel else 1


@dataclass
class Accepted:
    """One batch or job whose create was answered with its id, and what was done to it since."""

    tenant: str
    kind: str
    id: str
    lines: Sequence[Line]
    cancelled: bool = False
    """Whether somebody tried to cancel it."""
    hurried: bool = False
    """Whether its deadline may have come before its end."""


@dataclass
class Verdict:
    """What the checker found."""

    breaches: list[str] = field(default_factory=list)
    batches: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    never_planned: int = 0
    """Lines of batches that were cancelled or expired before their validation ended: those have no files."""
    lost: int = 0
    doubled: int = 0
    asked: int = 0
    recomputed: int = 0
    """Questions beyond those that each line takes."""
    deadliest: int = 0
    """Engines that the worst poison line met, with one member of its ensemble if it asks one."""

    def broken(self, sentences: Iterable[str]) -> None:
        """Add breaches; of one kind only the first few are spelled out."""
        found = list(sentences)
        self.breaches += found[:_MOST_LISTED]
        if len(found) > _MOST_LISTED:
            self.breaches.append(f"… and {len(found) - _MOST_LISTED} more like it")


def judge(
    database_url: str,
    accepted: Sequence[Accepted],
    clients: Mapping[str, Client],
    blobs: Path,
    journal: Path | None = None,
) -> Verdict:
    """Look at everything, once all has ended."""
    verdict = Verdict()
    with psycopg.connect(database_url, autocommit=True) as database:
        for one in accepted:
            verdict.broken(judge_one(one, clients[one.tenant], database, blobs, verdict))
        for tenant, client in clients.items():
            verdict.broken(strangers(tenant, client, accepted))
            verdict.broken(bills(tenant, client))
        for wrong in rows_that_must_not_be(database).values():
            verdict.broken(wrong)
        verdict.broken(blobs_that_must_not_be(database, blobs))
    if journal is not None:
        times = asked(journal, accepted)
        needs = {_noted(line): line.questions for one in accepted for line in one.lines}
        verdict.asked = times.total()
        verdict.recomputed = sum(max(0, count - needs[text]) for text, count in times.items())
        deaths = (-(-count // needs[text]) for text, count in times.items() if Line("", text).poison)
        verdict.deadliest = max(deaths, default=0)
    return verdict


# I1, I2: each line once, with its own answer; counts and usage add up.


def judge_one(
    one: Accepted, client: Client, database: psycopg.Connection[Any], blobs: Path, verdict: Verdict
) -> list[str]:
    """Where one batch or job that has ended is not what was accepted; counted in the verdict."""
    answer = client.http.get(f"/{'batches' if one.kind == 'batch' else 'jobs'}/{one.id}")
    if answer.status_code != 200:
        verdict.lost += len(one.lines)
        return [f"{one.id} was accepted and is now {answer.status_code}"]
    shown = answer.json()
    state = shown["status"]
    verdict.batches[state] += 1
    verdict.accepted += len(one.lines)
    excused = state == "completed" or (state == "cancelled" and one.cancelled) or (state == "expired" and one.hurried)
    wrong = [] if excused else [f"{one.id} ended as {state}, which nobody asked for: {shown['errors']}"]
    if one.kind == "job" and shown["results"] is not None:
        written = shown["results"]
    else:
        try:
            output, errors = (client.file(shown[f"{which}_file_id"]) for which in ("output", "error"))
        except (openai.APIError, json.JSONDecodeError) as error:
            verdict.lost += len(one.lines)
            return [*wrong, f"{one.id} shows a file that can't be read: {error}"]
        wrong += [f"{one.id} shows {line['custom_id']} in the wrong file" for line in output if not _good(line)]
        wrong += [f"{one.id} shows {line['custom_id']} in the wrong file" for line in errors if _good(line)]
        written = _in_order(one, output, errors, wrong)
    if not written and state in UNANSWERED and not _was_planned(database, one.id):
        verdict.never_planned += len(one.lines)
        counts = shown["request_counts"]
        return wrong + ([f"{one.id} was never planned and counts {counts}"] if any(counts.values()) else [])
    wrong += _judge_lines(one, state, written, verdict)
    members: Spoken = {}
    if any(line.panel for line in one.lines):
        members = panel_history.spoken(database, blobs, one.id, wrong)
        wrong += panel_history.judge(one.id, state, one.lines, written, members)
    return wrong + _judge_sums(one, shown, written, members, _price(database))


def _good(line: Mapping[str, Any]) -> bool:
    return line["error"] is None and 200 <= line["response"]["status_code"] < 300


def _in_order(one: Accepted, output: list[Any], errors: list[Any], wrong: list[str]) -> list[Any]:
    place = {line.custom_id: number for number, line in enumerate(one.lines)}
    for which, lines in (("output", output), ("error", errors)):
        places = [place.get(line["custom_id"], -1) for line in lines]
        if places != sorted(places):
            wrong.append(f"the {which} file of {one.id} is not in input order")
    return [*output, *errors]


def _was_planned(database: psycopg.Connection[Any], id: str) -> bool:
    query = "select exists (select from trail where batch = %s and slice is null and becomes = 'in_progress')"
    row = database.execute(query, [id]).fetchone()
    return bool(row and row[0])


def _judge_lines(one: Accepted, state: str, written: Sequence[Any], verdict: Verdict) -> list[str]:
    wrong = []
    times = Counter(line["custom_id"] for line in written)
    wanted = {line.custom_id: line for line in one.lines}
    for custom_id in wanted:
        if times[custom_id] == 0:
            verdict.lost += 1
            wrong.append(f"{custom_id} of {one.id} is lost")
        elif times[custom_id] > 1:
            verdict.doubled += 1
            wrong.append(f"{custom_id} of {one.id} is there {times[custom_id]} times")
    wrong += [f"{custom_id} is in {one.id} and was never sent" for custom_id in times if custom_id not in wanted]
    if len({line["id"] for line in written}) < len(times):
        wrong.append(f"two lines of {one.id} have one id")
    for line in written:
        if (sent := wanted.get(line["custom_id"])) is None:
            continue
        ended = _end_of(line)
        verdict.answered += _good(line)
        verdict.failed[ended] += not _good(line)
        if not _may_end(sent, state, line, ended):
            wrong.append(f"{line['custom_id']} of {one.id} ({sent.text[:60]!r}) ended as {ended}: {str(line)[:300]}")
    return wrong


def _end_of(line: Mapping[str, Any]) -> str:
    return str(line["error"]["code"] if line["error"] else line["response"]["status_code"])


def _may_end(sent: Line, state: str, line: Mapping[str, Any], ended: str) -> bool:
    if ended == UNANSWERED.get(state) or sent.panel:  # those are judged with their members
        return True
    if sent.poison:
        return ended == "engine_crash"
    if sent.refused:
        return ended == str(sent.refused)
    return ended == "200" and said(dict(line)) == sent.text


def _price(database: psycopg.Connection[Any]) -> tuple[Decimal, Decimal, Decimal]:
    """Of a token of each kind, exactly; a run has one price from its beginning on, whatever the model."""
    rows = database.execute("select distinct input, cached_input, output from prices").fetchall()
    assert len(rows) <= 1, "the models of a run cost the same"
    picos = rows[0] if rows else (0, 0, 0)
    return Decimal(picos[0]).scaleb(-12), Decimal(picos[1]).scaleb(-12), Decimal(picos[2]).scaleb(-12)


def _cost(lines: Sequence[Any], price: tuple[Decimal, Decimal, Decimal]) -> Decimal:
    """What answers cost, counted again from the lines of the files: a reused one costs its input as cached."""
    cost = Decimal(0)
    for line in lines:
        usage, reused = line["response"]["body"]["usage"], line["response"].get("cached", False)
        read, made = usage["prompt_tokens"], 0 if reused else usage["completion_tokens"]
        cached = read if reused else (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        cost += (read - cached) * price[0] + cached * price[1] + made * price[2]
    return cost


def bills(tenant: str, client: Client) -> list[str]:
    """Where a tenant's usage is not the sum over its batches and jobs, to the token and the smallest part of a cent."""
    answers = [client.http.get(f"/{path}/{id}") for path in ("batches", "jobs") for id in set(_listed(client, path))]
    own = [answer.json() for answer in answers if answer.status_code == 200]
    wrong = [f"{answer.url.path} is in the list of {tenant} and is now {answer.status_code}" for answer in answers
             if answer.status_code != 200]  # fmt: skip
    asked = {"start_time": int(time.time()) - 2 * 86_400, "limit": 4, "group_by": "batch"}
    buckets = client.http.get("/usage", params=asked).json()["data"]
    lines = [one for bucket in buckets for one in bucket["results"] if one["batch"]]
    for name in ("input_tokens", "output_tokens"):
        summed, told = sum(one["usage"][name] for one in own), sum(one[name] for one in lines)
        if summed != told:
            wrong.append(f"{tenant} used {told} {name} by its usage, and {summed} by its batches")
    for name in ("tokens", "gpu", "gpu_seconds"):
        of_batches = sum(Decimal(str(one["cost"][name])) for one in own if one["cost"])
        of_usage = sum(Decimal(str(one["cost"][name])) for one in lines if one["cost"])
        if of_batches != of_usage:
            wrong.append(f"{tenant} was charged {of_usage} ({name}) by its usage, and {of_batches} by its batches")
    return wrong


def _judge_sums(
    one: Accepted,
    shown: Mapping[str, Any],
    written: Sequence[Any],
    members: Spoken,
    price: tuple[Decimal, Decimal, Decimal],
) -> list[str]:
    """A line of an ensemble used and cost what its members did, whatever it came to."""
    wrong = []
    panels = {line.custom_id for line in one.lines if line.panel}
    answers = [line for line in written if line["custom_id"] not in panels and _good(line)]
    answers += [line for of_line in members.values() for line in of_line.values() if _good(line)]
    good = sum(_good(line) for line in written)
    counts = {"total": len(one.lines), "completed": good, "failed": len(written) - good}
    if shown["request_counts"] != counts:
        wrong.append(f"{one.id} counts {shown['request_counts']} and its files hold {counts}")
    usages = [line["response"]["body"]["usage"] for line in answers]
    spent = (sum(usage["prompt_tokens"] for usage in usages), sum(usage["completion_tokens"] for usage in usages))
    told = shown["usage"] or {"input_tokens": 0, "output_tokens": 0}
    if (told["input_tokens"], told["output_tokens"]) != spent:
        wrong.append(f"{one.id} was billed {told} and its answers used {spent}")
    cost = _cost(answers, price)
    if Decimal(shown["cost"]["tokens"] if shown["cost"] else 0) != cost:
        wrong.append(f"{one.id} was charged {shown['cost']} and its answers cost {cost}")
    return wrong


# I5: nobody sees another's; and a create that was repeated made one object.


def strangers(tenant: str, client: Client, accepted: Sequence[Accepted]) -> list[str]:
    """What a tenant sees that is not its own, or does not see that is."""
    wrong = []
    for kind, path in (("batch", "batches"), ("job", "jobs")):
        own = {one.id for one in accepted if (one.tenant, one.kind) == (tenant, kind)}
        listed = _listed(client, path)
        wrong += [f"{tenant} was never told of {id}, and it is in its list" for id in sorted(set(listed) - own)]
        wrong += [f"{id} was accepted for {tenant}, and its list lacks it" for id in sorted(own - set(listed))]
        wrong += [
            f"{id} is {count} times in the list of {tenant}" for id, count in Counter(listed).items() if count > 1
        ]
        others = [one.id for one in accepted if one.kind == kind and one.tenant != tenant]
        for id in others[:3] + others[-3:]:
            for answer in (client.http.get(f"/{path}/{id}"), client.http.post(f"/{path}/{id}/cancel")):
                if answer.status_code != 404:
                    wrong.append(f"{tenant} asks for {id} of another tenant and hears {answer.status_code}")
    return wrong


def _listed(client: Client, path: str) -> list[str]:
    found: list[str] = []
    more = True
    while more:
        page = client.http.get(f"/{path}", params={"limit": 100, **({"after": found[-1]} if found else {})}).json()
        found += [one["id"] for one in page["data"]]
        more = page["has_more"]
    return found


# I3, I4, I6, I7, I8: what the database says of itself. The rest of it is in store/invariants.py.

MUST_NOT_BE = {
    "a segment was accepted while its lease was not the slice's": """
        select g.slice, g.lease, g.seq, g.created_at from segments g join slices s on s.id = g.slice
        where not exists (
            select from trail t
            where t.batch = s.batch and t.slice = g.slice and t.lease = g.lease
              and t.becomes = 'running' and t.at <= g.created_at)
           or exists (
            select from trail t
            where t.batch = s.batch and t.slice = g.slice and t.lease = g.lease
              and t.was = 'running' and t.at < g.created_at)
           or exists (select from leases l where l.id = g.lease and g.created_at < l.opened_at)""",
    "a trail does not begin at its birth": """
        select t.batch, t.slice, t.becomes from trail t join batches b on b.id = t.batch
        where t.was is null and t.becomes <> case
            when t.slice in (
                -- Folds, and members that are asked once others were.
                select s.id from slices s join ensembles e on e.id = s.ensemble
                where s.member is null
                   or s.place > 0 and cast(e.definition as json) ->> 'kind' in ('fallback', 'cascade')
            ) then 'waiting'
            when t.slice is not null then 'queued' when b.inline then 'in_progress' else 'validating' end""",
    "something of a batch moved or was recorded after its end": """
        select ended.batch, ended.becomes, later.slice, later.becomes as then
        from trail ended join trail later on later.batch = ended.batch and later.id > ended.id
        where ended.slice is null and ended.becomes in ('completed', 'cancelled', 'expired', 'failed')
        union all
        select ended.batch, ended.becomes, g.slice, 'recorded'
        from trail ended join slices s on s.batch = ended.batch join segments g on g.slice = s.id
        where ended.slice is null and ended.becomes in ('completed', 'cancelled', 'expired', 'failed')
          and g.created_at > ended.at""",
    "a slice was given to an older lease than it had before": """
        select t.slice, t.before, t.lease from (
            select slice, lease, lag(lease) over (partition by slice order by id) as before
            from trail where becomes = 'running') t
        where t.lease <= t.before""",
    "a batch has not ended": """
        select id, state from batches where state not in ('completed', 'cancelled', 'expired', 'failed')""",
    "a lease is open, and everything has ended": "select id, kind, batch from leases where closed_at is null",
    **panel_history.MUST_NOT_BE,
}


def rows_that_must_not_be(database: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """What the rows and the trail show that may never be, and what may not be once everything has ended."""
    found = {promise: database.execute(query.encode()).fetchall() for promise, query in MUST_NOT_BE.items()}
    for promise, query in invariants.BROKEN.items():
        found[f"it does not hold that {promise}"] = database.execute(query.encode()).fetchall()
    return {meaning: [f"{meaning}: {row}" for row in rows] for meaning, rows in found.items()}


# I8: blobs and rows know each other.

_NAMED = """
    select blob_key from files
    union select index_key from files where index_key is not null
    union select blob_key from upload_parts
    union select blob_key from segments where blob_key is not null
    union select plan_key from batches where plan_key is not null
    union select input_key from batches where input_key is not null"""
_NEEDED = """
    select blob_key from files union select blob_key from upload_parts
    union select index_key from files where index_key is not null
    union select blob_key from segments where blob_key is not null"""


def blobs_that_must_not_be(database: psycopg.Connection[Any], blobs: Path) -> list[str]:
    """Blobs that no row and no intent names, and rows whose blob is not there."""
    named, needed, intended = (
        {key for (key,) in database.execute(query.encode())}
        for query in (_NAMED, _NEEDED, "select blob_key from intents")
    )
    # On disk, a write that was cut leaves `<key>#<n>`, which goes together with the key.
    there = {str(path.relative_to(blobs)).partition("#")[0] for path in blobs.rglob("*") if path.is_file()}
    wrong = [f"nobody will ever sweep the blob {key}" for key in sorted(there - named - intended)]
    return wrong + [f"the blob {key} is not there, and a row names it" for key in sorted(needed - there)]


def leftovers(database_url: str, blobs: Path, scratch: Path) -> list[str]:
    """What a finished sweep should have taken: intents, what only they name, and files on scratch."""
    with psycopg.connect(database_url, autocommit=True) as database:
        intents = [key for (key,) in database.execute("select blob_key from intents")]
        wrong = blobs_that_must_not_be(database, blobs)
    wrong += [f"an intent outlives the sweep: {key}" for key in intents]
    return wrong + [f"left on scratch: {path}" for path in sorted(scratch.rglob("*")) if path.is_file()]


# The journal, and recovery.


def asked(journal: Path, accepted: Sequence[Accepted]) -> Counter[str]:
    """How often engines were asked each line that was accepted, by the beginning of its text."""
    known = {_noted(line) for one in accepted for line in one.lines}
    noted = (entry.split("\t", 2)[2] for entry in journal.read_text().splitlines()) if journal.exists() else ()
    return Counter(text for text in noted if text in known)


def _noted(line: Line) -> str:
    return line.text[:_NOTED_CHARACTERS].replace("\t", " ")


_RECOVERY = """
    select extract(epoch from freed.at) - %(at)s as freed,
           (select extract(epoch from min(n.at)) - %(at)s from trail n
            where n.slice = l.slice and n.id > freed.id and n.becomes = 'running') as again
    from leases l join trail freed on freed.slice = l.slice and freed.lease = l.id and freed.was = 'running'
    where l.holder = %(holder)s and freed.becomes = 'queued'
      and extract(epoch from l.opened_at) < %(at)s and extract(epoch from freed.at) > %(at)s"""


def recoveries(database_url: str, kills: Sequence[tuple[UUID, float]]) -> tuple[list[float], list[float]]:
    """Seconds from each kill of a process (its holder id, unix time) until what it held was free, and ran again."""
    freed, again = [], []
    with psycopg.connect(database_url, autocommit=True) as database:
        for holder, at in kills:
            for row in database.execute(_RECOVERY.encode(), {"holder": holder, "at": at}):
                freed.append(float(row[0]))
                again += [] if row[1] is None else [float(row[1])]
    return freed, again
