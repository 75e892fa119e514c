"""The history of panels: each line that asked an ensemble has the answer that its rule makes of what members recorded.

Members' own segments are read beside the files: who was asked what, and what that cost, is counted again from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import psycopg
from e2e.live import said
from faults.panels import Panel

from penstock.formats import plan

Spoken: TypeAlias = dict[str, dict[int, dict[str, Any]]]
"""What members recorded: an output line by custom_id and place."""

_SEGMENTS: Final = """
    select s.place, g.blob_key, g.data from segments g join slices s on s.id = g.slice
    where s.batch = %s and s.fold is not null order by g.id"""


class Sent(Protocol):
    """A line that was accepted."""

    @property
    def custom_id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def panel(self) -> Panel | None: ...
    @property
    def poison(self) -> bool: ...


LATER: Final = """
    (s.fold is not null and case cast(e.definition as json) ->> 'kind'
        when 'fallback' then s.place > 0 when 'cascade' then s.place > 0
        when 'route' then s.place < json_array_length(cast(e.definition as json) -> 'members')
        else s.place >= json_array_length(cast(e.definition as json) -> 'members') end)"""
"""A member `s` of `e` that is asked once others were: of those in turn all but the first, a judge, and whoever a
classifier may name."""
MUST_NOT_BE: Final = {
    "what a judge is asked is a part of the plan, and intended still": """
        select i.blob_key from intents i join slices s on s.plan_key = i.blob_key join batches b on b.id = s.batch
        where i.doomed_at is null or b.state not in ('completed', 'cancelled', 'expired', 'failed')""",
    "a later member was asked twice: its wave was cut twice": """
        select slice, count(*) from trail where was = 'waiting' and becomes = 'queued' and slice is not null
        group by 1 having count(*) > 1""",
    "a fold ran while a member of its was at work": """
        select f.slice, f.lease, m.slice as member, m.becomes from trail f join slices s on s.fold = f.slice
        join lateral (
            select t.slice, t.becomes from trail t where t.slice = s.id and t.id < f.id order by t.id desc limit 1
        ) m on m.becomes in ('queued', 'ready', 'running')
        where f.becomes = 'running'""",
    "a member moved after its fold was settled": """
        select f.slice, m.slice as member, m.becomes from trail f join slices s on s.fold = f.slice
        join trail m on m.slice = s.id and m.id > f.id
        where f.becomes = 'done' and m.becomes <> 'dropped'""",
    "a member answered a line that was folded already": """
        select f.slice, m.slice as member, m.lines from segments f join slices s on s.fold = f.slice
        join segments m on m.slice = s.id and m.lines && f.lines and m.created_at > f.created_at""",
    "a member answered before it was asked": """
        select s.id from slices s join segments g on g.slice = s.id
        where s.picked is not null and g.created_at < s.released_at""",
    "a later member was never asked, and answered": f"""
        select s.id from slices s join ensembles e on e.id = s.ensemble join segments g on g.slice = s.id
        where s.picked is null and {LATER}""",
}


def spoken(database: psycopg.Connection[Any], blobs: Path, batch: str, wrong: list[str]) -> Spoken:
    """What members recorded for a batch's lines; a line that one of them has twice is a breach."""
    found: Spoken = {}
    for place, key, data in database.execute(_SEGMENTS, [batch]):
        framed = bytes(data) if data is not None else (blobs / key).read_bytes()
        for _, written in plan.unframe(framed):
            line = json.loads(written)
            of_line = found.setdefault(line["custom_id"], {})
            if place in of_line:
                wrong.append(f"member {place} answered {line['custom_id']} of {batch} twice")
            of_line[place] = line
    return found


def judge(
    batch: str, state: str, lines: Sequence[Sent], written: Sequence[Mapping[str, Any]], members: Spoken
) -> list[str]:
    """Where a line did not become what its ensemble's rule says."""
    ended = {line["custom_id"]: line for line in written}
    wrong = []
    for sent in lines:
        if sent.panel is not None and sent.custom_id in ended:
            what = _wrong(sent, sent.panel, state, ended[sent.custom_id], members.get(sent.custom_id, {}))
            wrong += [f"{sent.custom_id} of {batch} ({sent.panel.kind}, {sent.text!r}) {one}" for one in what]
    return wrong


def _wrong(
    sent: Sent, panel: Panel, state: str, line: Mapping[str, Any], members: Mapping[int, dict[str, Any]]
) -> list[str]:
    wrong = []
    needed = set(panel.asked(sent.text))
    if state == "completed" and members.keys() != needed:
        wrong.append(f"was asked of {sorted(members)} and needs {sorted(needed)}")
    if not members.keys() <= needed:
        wrong.append(f"was asked of {sorted(members)} and needs {sorted(needed)} at most")
    answers = {place: said(one) for place, one in members.items() if good(one)}
    for place, one in members.items():
        if answers.get(place) != panel.says(place, sent.text):
            wrong.append(f"heard {str(one)[:200]} of member {place}")
        code = one["error"]["code"] if one["error"] else one["response"]["status_code"]
        if place not in answers and code != ("engine_crash" if sent.poison else 400):
            wrong.append(f"failed with member {place} as {code}")
    found = panel.verdict(answers)
    code = line["error"]["code"] if line["error"] else None
    if found is None:
        may = ["ensemble_quorum"] if members.keys() == needed else []
        may += [{"cancelled": "batch_cancelled", "expired": "batch_expired"}[state]] if state != "completed" else []
        return wrong if code in may else [*wrong, f"has no verdict and ended as {str(line)[:300]}"]
    if not good(line):
        return [*wrong, f"has an answer of member {found.winner} and ended as {str(line)[:300]}"]
    return wrong + _answer(panel, answers, members, line, state)


def _answer(
    panel: Panel,
    answers: Mapping[int, str],
    members: Mapping[int, dict[str, Any]],
    line: Mapping[str, Any],
    state: str,
) -> list[str]:
    """Where an answer is not the winner's, or its trace or usage is not the members'."""
    found, body, labels = panel.verdict(answers), line["response"]["body"], panel.labels
    assert found is not None
    trace = body["penstock"]
    wrong = [] if said(dict(line)) == answers[found.winner] else [f"says {said(dict(line))!r}"]
    head = [trace["ensemble"], trace["kind"], trace["winner"], trace.get("agreement"), trace.get("degraded", False)]
    if head != [panel.name, panel.kind, labels[found.winner], found.agreement, found.degraded]:
        wrong.append(f"has the trace {trace}, and its verdict is {found}")
    each = [*trace["members"], *([trace["judge"]] if "judge" in trace else [])]
    told = {labels.index(one["model"]): one for one in each}
    used = {place: members[place]["response"]["body"]["usage"] for place in answers}
    for place, one in told.items():
        if place in answers:
            right = one["outcome"] == "answered" and one["tokens"] == used[place]["total_tokens"]
        elif place in members:
            right = one["outcome"] in ("refused", "failed") and one["tokens"] == 0
        else:
            right = one["outcome"] in ("cancelled", "unavailable") and one["tokens"] == 0 and state != "completed"
        if not right:
            wrong.append(f"says of member {place}: {one}")
    if not members.keys() <= told.keys() or len(told) != len(each):
        wrong.append(f"tells of members {sorted(told)} and was asked of {sorted(members)}")
    if (choice := trace.get("judge", {}).get("choice")) != panel.choice(answers):
        wrong.append(f"says that its judge named {choice}, who said {answers.get(len(panel.seats))!r}")
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        if body["usage"][name] != sum(one[name] for one in used.values()):
            wrong.append(f"used {body['usage']} and its members {used}")
    return wrong


def good(line: Mapping[str, Any]) -> bool:
    """Whether a line of a file is an answer."""
    return line["error"] is None and 200 <= line["response"]["status_code"] < 300
