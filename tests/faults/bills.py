"""Bills: what a tenant, and each batch and job, used and was charged, counted again from the answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import psycopg
from e2e.live import Client
from faults.accepted import Accepted
from faults.panel_history import Spoken, good
from faults.strangers import listed

Price: TypeAlias = tuple[Decimal, Decimal, Decimal]
"""Of a token of each kind: read, read from a cache, made."""


def price_of(database: psycopg.Connection[Any]) -> Price:
    """Of a token of each kind, exactly; a run has one price from its beginning on, whatever the model."""
    rows = database.execute("select distinct input, cached_input, output from prices").fetchall()
    assert len(rows) <= 1, "the models of a run cost the same"
    picos = rows[0] if rows else (0, 0, 0)
    return Decimal(picos[0]).scaleb(-12), Decimal(picos[1]).scaleb(-12), Decimal(picos[2]).scaleb(-12)


def cost_of(lines: Sequence[Any], price: Price) -> Decimal:
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
    answers = [client.http.get(f"/{path}/{id}") for path in ("batches", "jobs") for id in set(listed(client, path))]
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


def bill_of(
    one: Accepted,
    shown: Mapping[str, Any],
    written: Sequence[Any],
    members: Spoken,
    price: Price,
) -> list[str]:
    """A line of an ensemble used and cost what its members did, whatever it came to."""
    wrong = []
    panels = {line.custom_id for line in one.lines if line.panel}
    answers = [line for line in written if line["custom_id"] not in panels and good(line)]
    answers += [line for of_line in members.values() for line in of_line.values() if good(line)]
    answered = sum(good(line) for line in written)
    counts = {"total": len(one.lines), "completed": answered, "failed": len(written) - answered}
    if shown["request_counts"] != counts:
        wrong.append(f"{one.id} counts {shown['request_counts']} and its files hold {counts}")
    usages = [line["response"]["body"]["usage"] for line in answers]
    spent = (sum(usage["prompt_tokens"] for usage in usages), sum(usage["completion_tokens"] for usage in usages))
    told = shown["usage"] or {"input_tokens": 0, "output_tokens": 0}
    if (told["input_tokens"], told["output_tokens"]) != spent:
        wrong.append(f"{one.id} was billed {told} and its answers used {spent}")
    cost = cost_of(answers, price)
    if Decimal(shown["cost"]["tokens"] if shown["cost"] else 0) != cost:
        wrong.append(f"{one.id} was charged {shown['cost']} and its answers cost {cost}")
    return wrong
