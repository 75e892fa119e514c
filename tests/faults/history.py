"""The history checker: what was accepted came back exactly once, and nothing happened that may not happen.

    verdict = judge(url, accepted, {tenant: client}, blobs, journal)
    assert not verdict.breaches

It looks after the fact, when every batch has ended: at the files as their tenants see them, at the rows and the trail
of moves in the database, at the blobs on disk, and at the journal of the engines. A breach is a sentence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import openai
import psycopg
from e2e.live import Client, said
from faults import journal as journals
from faults import panel_history
from faults.accepted import Accepted, Line
from faults.bills import bill_of, bills, price_of
from faults.leftovers import blobs_that_must_not_be
from faults.panel_history import Spoken, good
from faults.rows import rows_that_must_not_be
from faults.strangers import strangers

from penstock_worker.engine.echo.answers import tokens_of, vector_of

_MOST_LISTED: Final = 5
UNANSWERED: Final = {"cancelled": "batch_cancelled", "expired": "batch_expired"}


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
        needs = journals.needed(accepted)
        times = journals.asked(journal, needs)
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
        wrong += [f"{one.id} shows {line['custom_id']} in the wrong file" for line in output if not good(line)]
        wrong += [f"{one.id} shows {line['custom_id']} in the wrong file" for line in errors if good(line)]
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
    return wrong + bill_of(one, shown, written, members, price_of(database))


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
        verdict.answered += good(line)
        verdict.failed[ended] += not good(line)
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
    if sent.embedded:
        return ended == "200" and _is_embedded(sent.text, line["response"]["body"])
    return ended == "200" and said(dict(line)) == sent.text


def _is_embedded(text: str, body: Mapping[str, Any]) -> bool:
    """Its own vector alone, and its own tokens, whatever else the engine was asked for in the same request."""
    [one] = body["data"]
    return (one["index"], one["embedding"], body["usage"]["prompt_tokens"]) == (0, vector_of(text), tokens_of(text))
