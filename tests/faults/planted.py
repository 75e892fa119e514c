"""What is planted in a past: how it is falsified, and what the history checker says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

# What is planted in rows, and what the checker says of it.
IN_ROWS = {
    "a wrong count": (
        "counts .* and its files hold",
        "update batches set completed = completed - 1, failed = failed + 1 where id = %(batch)s",
    ),
    "a wrong bill": ("was billed", "update batches set output_tokens = output_tokens + 1 where id = %(batch)s"),
    "a wrong charge": ("was charged", "update batches set token_cost = token_cost + 1 where id = %(batch)s"),
    "a segment that cost another price": ("costs what its price says", "update segments set gpu_cost = gpu_cost + 1"),
    "usage that counts a line twice": (
        "by its usage, and",
        "insert into usage_lines select 'default', 'tiny', date_trunc('hour', now()), 1, 3, 0, 2, 0, 0, 0, 0, 0",
    ),
    "a slice that counts wrong": ("counts and usage are the sums", "update slices set failed = 0 where failed > 0"),
    "a batch that was forgotten": ("is now 404", "update batches set id = 'batch_x' where id = %(batch)s"),
    "another's batch": ("another tenant and hears 200", "update batches set tenant = 'default' where id = %(job)s"),
    "a move that is not in the trail": (
        "the trail of moves is a chain",
        "delete from trail where becomes = 'running' and batch = %(batch)s",
    ),
    "a move that is not legal": (
        "the trail of moves is a chain",
        "insert into trail (batch, was, becomes) values (%(batch)s, 'completed', 'failed')",
    ),
    "a wrong birth": (
        "a trail does not begin at its birth",
        "update trail set becomes = 'in_progress' where slice is null and was is null and batch = %(batch)s",
    ),
    "a move after the end": (
        "moved or was recorded after its end",
        "insert into trail (batch, slice, was, becomes) select batch, id, 'done', 'queued' from slices limit 1",
    ),
    "a segment after the end": ("moved or was recorded after its end", "update segments set created_at = now()"),
    "a segment under a lost lease": ("while its lease was not the slice's", "update segments set created_at = now()"),
    "a segment before its lease": (
        "while its lease was not the slice's",
        "update segments set created_at = created_at - interval '1 h'",
    ),
    "a slice that went back to an older lease": (
        "given to an older lease",
        "insert into trail (batch, slice, was, becomes, lease)"
        " select batch, slice, was, becomes, 0 from trail where becomes = 'running'",
    ),
    "tokens that fall": ("does not hold that tokens never fall", "{again}"),
    "a line in two segments": ("does not hold that no line is in two segments", "{again}"),
    "an end without its event": ("its one event", "delete from events where batch = %(batch)s"),
    "an end with two events": (
        "its one event",
        "insert into events (id, tenant, batch, type) values ('evt', 'default', %(batch)s, 'batch.failed')",
    ),
    "a lease that is open": ("a lease is open", "update leases set closed_at = null, closed_as = null"),
    "a batch that never ends": ("has not ended", "update batches set state = 'finalizing' where id = %(batch)s"),
    "a wave that was cut twice": (
        "its wave was cut twice",
        "insert into trail (batch, slice, was, becomes)"
        " select batch, slice, was, becomes from trail where was = 'waiting' and becomes = 'queued'",
    ),
    "a fold that ran while its member did": (
        "a fold ran while a member of its was at work",
        "delete from trail where was = 'running' and becomes = 'done'"
        " and slice in (select id from slices where place = 1)",
    ),
    "a member that went on after its fold was settled": (
        "a member moved after its fold was settled",
        "insert into trail (batch, slice, was, becomes)"
        " select batch, id, 'queued', 'ready' from slices where place = 2",
    ),
    "a member's answer that came too late": (
        "answered a line that was folded already",
        "update segments set created_at = created_at + interval '1 h'"
        " where slice in (select id from slices where place = 1)",
    ),
    "a member that answered before it was asked": (
        "answered before it was asked",
        "update slices set released_at = released_at + interval '1 h' where picked is not null",
    ),
    "a member that nobody asked": (
        "was never asked, and answered",
        "update slices set picked = null, released_at = null where picked is not null and plan_key is null",
    ),
    "a later member that did not wait": (
        "a trail does not begin at its birth",
        "update trail set becomes = 'queued' where was is null and becomes = 'waiting'"
        " and slice in (select id from slices where place = 1)",
    ),
    "a member's answer that is gone": (
        "was asked of .* and needs",
        "delete from segments where slice in (select id from slices where place = 1)",
    ),
    "a line that was asked of members that it did not need": (
        "was asked of .* and needs .* at most",
        "update slices set place = 3 - place where picked is not null and place < 3",
    ),
    "a judge's answer that is gone": (
        "was asked of .* and needs",
        "delete from segments where slice in (select id from slices where place = 3)",
    ),
    "questions of a judge that nobody published": (
        "is a part of the plan, and intended still",
        "insert into intents (blob_key) select plan_key from slices where plan_key is not null",
    ),
    "a bill without the members": (
        "was billed",
        "update batches set input_tokens = input_tokens / 2 where id = %(panels)s",
    ),
    "a blob that is gone": (
        "is not there, and a row names it",
        "update segments set blob_key = 'x' where id = (select min(id) from segments where data is null)",
    ),
    "a file that is gone": (
        "shows a file that can't be read",
        "update files set blob_key = id where purpose <> 'batch'",
    ),
}
AGAIN = """
    insert into segments (slice, lease, seq, data, bytes, lines, failed_lines, completed, failed,
                          input_tokens, cached_tokens, output_tokens, reasoning_tokens)
    select slice, 0, 99, 'x', bytes, lines, failed_lines, completed, failed,
           input_tokens, cached_tokens, output_tokens, reasoning_tokens
    from segments where slice in (select id from slices where batch = %(batch)s) limit 1"""

# What is planted in files: how their lines change.
Lines = list[dict[str, Any]]


def crashed(line: dict[str, Any], **more: Any) -> dict[str, Any]:
    return line | {"response": None, "error": {"code": "engine_crash", "message": ""}} | more


def in_other_words(line: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(line).replace("first", "fifth")))


IN_FILES: dict[str, tuple[str, str, Callable[[Lines], Lines]]] = {
    "a lost line": ("a1 of .* is lost", "output", lambda lines: [lines[0], *lines[2:]]),
    "a doubled line": ("a0 of .* is there 2 times", "output", lambda lines: [lines[0], *lines]),
    "a line in both files": ("a0 of .* 2 times", "error", lambda lines: [crashed(lines[0], custom_id="a0"), *lines]),
    "another line's answer": ("a0 .* as 200", "output", lambda lines: [in_other_words(lines[0]), *lines[1:]]),
    "a line that nobody sent": ("z is .* never sent", "output", lambda lines: [*lines, lines[0] | {"custom_id": "z"}]),
    "one id twice": ("have one id", "output", lambda lines: [lines[0], lines[1] | {"id": lines[0]["id"]}, *lines[2:]]),
    "lines in disorder": ("the output file .* not in input order", "output", lambda lines: lines[::-1]),
    "an innocent line that crashed": ("a3 .* engine_crash", "error", lambda lines: [crashed(lines[0]), *lines[1:]]),
    "a refusal among the answers": ("in the wrong file", "output", lambda lines: [crashed(lines[0]), *lines[1:]]),
}

# What is planted in answers of ensembles: how one of them changes.
Answer = dict[str, Any]


def other_winner(answer: Answer) -> None:
    answer["penstock"]["winner"] = "tiny#3"


def one_tells_more(answer: Answer) -> None:
    answer["penstock"]["members"][0]["tokens"] += 1


def one_is_missing(answer: Answer) -> None:
    del answer["penstock"]["members"][-1]


def less_used(answer: Answer) -> None:
    answer["usage"]["prompt_tokens"] -= 1


def another_text(answer: Answer) -> None:
    answer["choices"][0]["message"]["content"] += "?"


def another_choice(answer: Answer) -> None:
    answer["penstock"]["judge"]["choice"] = 1


def no_judge(answer: Answer) -> None:
    del answer["penstock"]["judge"]


def good_enough(answer: Answer) -> None:
    del answer["penstock"]["degraded"]


IN_ANSWERS: dict[str, tuple[str, int, Callable[[Answer], None]]] = {
    "another winner": ("has the trace .* and its verdict is", 0, other_winner),
    "a member's tokens": ("says of member 0", 0, one_tells_more),
    "a member too few": ("tells of members", 0, one_is_missing),
    "less usage than the members'": ("used .* and its members", 0, less_used),
    "another text": ("says 'line 0 of fourth please\\?'", 0, another_text),
    "a judge's other choice": ("says that its judge named 1, who said '3'", 3, another_choice),
    "no word of the judge": ("tells of members", 3, no_judge),
    "a writing judge's other text": ("says 'user: line 4 of fourth please \\| 3 \\| .*\\?'", 4, another_text),
    "a verdict that is none": ("has the trace .* and its verdict is", 8, good_enough),
}
"""And the line of the ensembles' batch that it is planted in."""
