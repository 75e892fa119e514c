"""Ensembles as a person reads them: the rules of each kind, what went to its members, and whom it would ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from penstock.cli.printing import say, show, table

if TYPE_CHECKING:
    from penstock.domain.ensembles.ensemble import EnsembleDefinition

_COUNTS = ("lines", "completed_lines", "failed_lines", "calls", "failed_calls")


def definition(one: dict[str, Any]) -> EnsembleDefinition:
    """What an ensemble of the API is made of; raises what a definition raises that can't be read."""
    from penstock.domain.ensembles.definition import read

    return read(one["definition"])


def print_ensemble(one: dict[str, Any]) -> None:
    """Print what an ensemble does, and what went to each of its members."""
    found = definition(one)
    if found.kind.gathers:
        say(f"the answer is {decides(found)}")
        show(table(("term", "is"), terms(found)))
        if one["agreement"] is not None:
            say(f"members agree to {one['agreement']:.1%} on a line")
    else:
        show(table(("rule", "when", "use"), rules(one)))
        if found.classifier:
            show(table(("term", "is"), classifier_terms(found)))
    weighs = found.kind == "vote" or found.kind.judged
    seldom = found.kind.in_turn or (found.judge is not None and (found.kind == "vote" or found.max_cost is not None))
    heads = ["member", *(["weight"] if weighs else []), "lines", "answered", "failed", "calls", "failed calls"]
    heads += [*(["escalation"] if seldom else []), "params"]
    show(table(heads, (_member(member, weighs, seldom) for member in _all(one))))


def _all(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The members, and behind them the judge or the classifier under its model's name, too."""
    members: list[dict[str, Any]] = one["members"]
    reader = one["judge"] or one["classifier"]
    return members + ([reader | {"label": f"{reader['label']}: {reader['model']}"}] if reader else [])


def _member(one: dict[str, Any], weighs: bool, seldom: bool) -> list[str]:
    weight = "" if one["weight"] is None else f"{one['weight']:g}"
    row = [one["label"], *([weight] if weighs else []), *(f"{one[count]:,}" for count in _COUNTS)]
    if seldom:
        rate = one["escalation_rate"]
        row.append("" if rate is None else f"{rate:.1%}")
    return [*row, json.dumps(one["params"]) if one["params"] else ""]


def members(one: dict[str, Any]) -> str:
    """In their order, and the judge or classifier, for a line of a list."""
    return ", ".join(member["label"] for member in _all(one))


def rules(one: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Of a route: number, conditions and member of each."""
    from penstock.domain.ensembles.ensemble import Rule

    for place, rule in enumerate(one["rules"], 1):
        yield str(place), Rule(rule["use"], rule["when"] or {}).label, rule["use"]


def classifier_terms(found: EnsembleDefinition) -> Iterator[tuple[str, str]]:
    """Of a route: how its classifier is asked."""
    assert found.classifier is not None, "it has one"
    yield "by", found.classifier.by.value
    yield "labels", ", ".join(found.classifier.labels)
    if found.classifier.embeds:
        for label, texts in found.classifier.examples.items():
            yield f"examples of {label}", " | ".join(texts)
    else:
        yield "prompt", found.classifier.prompt
    yield "reads_chars", f"{found.classifier.reads_chars:,}"
    yield "on_error", "fail" if found.fails_with_member else "skip"
    yield "timeout_seconds", f"{found.timeout_seconds:g}"


def terms(found: EnsembleDefinition) -> Iterator[tuple[str, str]]:
    """What else its operator said, or could have."""
    from penstock.domain.accounts.price import money

    if found.kind == "vote":
        extract = found.extract
        way = f"regex {extract.regex}" if extract.regex is not None else "all of the text"
        if extract.json is not None:
            way = f"json {extract.json or 'all of it'}"
        yield "extract", f"{way}, {extract.normalise}"
        if extract.labels is not None:
            yield "labels", ", ".join(extract.labels)
        yield "tie", found.tie.value
    if found.method:
        yield "method", found.method.value
    if found.judge:
        yield "prompt", found.judge.prompt
        yield "reads_chars", f"{found.judge.reads_chars:,}"
    if found.kind == "vote" or found.kind.judged:
        yield "min_responses", str(found.min_responses)
    if found.kind == "cascade":
        yield "accept", _accepted(found)
    if found.kind != "fallback":
        yield "on_error", "fail" if found.fails_with_member else "skip"
    yield "timeout_seconds", f"{found.timeout_seconds:g}"
    if found.max_cost is not None:
        yield "max_cost", money(found.max_cost)


def decides(found: EnsembleDefinition) -> str:
    """What makes one answer of its members'."""
    if found.kind == "vote":
        tie = "the first member's" if found.tie == "first" else "the one with the heaviest member"
        if found.judge:
            spare = "the request has failed" if found.fails_with_member else tie
            tie = f"the one that the judge names; where it gives no verdict {spare}"
        return f"the first one with the vote that weighs most; of votes that weigh the same {tie}"
    if found.method:
        return "made of all members' numbers, by their weights"
    if found.judge:
        verdict = "the one that the judge names" if found.kind == "best_of" else "what the judge writes of them"
        spare = "the request has failed" if found.fails_with_member else "the heaviest member's, of several the first"
        return f"{verdict}; where it gives no verdict {spare}; of one answer alone that"
    if found.kind == "cascade":
        return "the first one that is good enough; the last member's always is"
    return "that of the first member that answers"


def asked(found: EnsembleDefinition) -> list[dict[str, Any]]:
    """Whom a request is asked, in which wave, and when."""
    why = "'s answer is not good enough, or there is none" if found.kind == "cascade" else " does not answer"
    before = [None, *found.members] if found.kind.in_turn else [None] * len(found.members)
    listed = [
        {
            "member": one.label,
            "model": one.model,
            "wave": place + 1 if found.kind.in_turn else 1,
            "when": "at once" if last is None else f"if {last.label}{why}",
        }
        for place, (one, last) in enumerate(zip(found.members, before, strict=False))
    ]
    if found.judge:
        judge = found.judge.member
        when = "once all have, if votes are tied" if found.kind == "vote" else "once all have, if two or more answered"
        listed.append({"member": judge.label, "model": judge.model, "wave": 2, "when": when})
    return listed


def _accepted(found: EnsembleDefinition) -> str:
    accept = found.accept
    said = [f"mean_logprob_over {accept.mean_logprob_over:g}"] if accept.mean_logprob_over is not None else []
    if accept.regex is not None:
        said.append(f"regex {accept.regex}")
    if accept.json_schema is not None:
        said.append(f"json_schema {json.dumps(accept.json_schema)}")
    return " and ".join(said)
