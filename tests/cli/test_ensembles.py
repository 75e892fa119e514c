"""`penstock ensembles`: added from a file, looked at, tried and removed from a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import Penstock

from penstock.service.admin import models
from penstock.service.core.transaction import Database

YAML = """
name: support            # used as `model`
kind: route
members:
  - model: small
  - {model: coder, params: {temperature: 0}}
rules:
  - {when: {contains_code: true}, use: coder}
default: small
"""


@pytest.fixture(autouse=True)
def known(db: Database) -> None:
    for name in ("small", "coder"):
        db.run(models.add, name)


def test_one_is_added_shown_tried_and_removed(penstock: Penstock, tmp_path: Path) -> None:
    def does(*words: str) -> str:
        done = penstock("ensembles", *words)
        assert done.exit_code == 0, (words, done.output)
        return " ".join(done.stdout.split())

    (tmp_path / "support.yaml").write_text(YAML)
    assert does("add", "support.yaml") == "support is v1, of small, coder"
    (tmp_path / "support.json").write_text(json.dumps(json.loads(does("show", "support", "--json")) and {
        "name": "support", "kind": "route", "members": [{"model": "small"}], "default": "small",
    }))  # fmt: skip
    assert does("add", "support.json") == "support is v2, of small"
    assert "support v2 route small" in does("list")
    shown = does("show", "support", "--version", "1")
    assert "support v1: route, since" in shown
    assert "1 contains_code true coder 2 otherwise small" in shown
    assert 'coder 0 0 0 0 0 {"temperature": 0}' in shown
    assert does("try", "support", "def f(x):\n    return x", "--version", "1").endswith("coder 1 1 contains_code true")
    bodies = [{"messages": [{"role": "user", "content": text}]} for text in ("hello", "```\nx\n```", "you")]
    lines = [{"custom_id": f"q{n}", "url": "/v1/chat/completions", "body": body} for n, body in enumerate(bodies)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, [*lines, bodies[0]])))
    tried = json.loads(does("try", "support", "in.jsonl", "--version", "1", "--json"))["data"]
    assert [(one["custom_id"], one["use"], one["rule"]) for one in tried] == [
        ("q0", "small", 2), ("q1", "coder", 1), ("q2", "small", 2), (None, "small", 2),
    ]  # fmt: skip
    assert does("remove", "support") == "support stands for nothing"


VOTE = """
name: panel
kind: vote
members:
  - {model: small, weight: 1, params: {seed: 1}}
  - {model: small, weight: 1, params: {seed: 2}}
  - {model: coder, weight: 2.5}
extract: {regex: '(?m)^Answer: (.+)$', normalise: lower_trim}
min_responses: 2
"""
CASCADE = """
name: steps
kind: cascade
members: [{model: small}, {model: coder}]
accept: {mean_logprob_over: -0.4, json_schema: {type: object}}
on_error: fail
timeout_seconds: 60
"""
BEST = """
name: best
kind: best_of
members: [{model: small}, {model: small, weight: 2, params: {seed: 2}}]
judge: {model: coder, prompt: "{request} {answers} Which?", reads_chars: 2000}
"""
FALLBACK = "{name: safe, kind: fallback, members: [{model: small}, {model: coder@stable}]}"


def test_the_kinds_that_ask_several_say_whom_and_what_decides(penstock: Penstock, tmp_path: Path) -> None:
    def does(*words: str) -> str:
        done = penstock("ensembles", *words)
        assert done.exit_code == 0, (words, done.output)
        return " ".join(done.stdout.split())

    for name, written in (("panel", VOTE), ("steps", CASCADE), ("safe", FALLBACK)):
        (tmp_path / f"{name}.yaml").write_text(written)
        does("add", f"{name}.yaml")
    assert "panel v1 vote small, small#2, coder" in does("list")
    shown = does("show", "panel")
    assert "the answer is the first one with the vote that weighs most; of votes that weigh the same the one" in shown
    assert "extract regex (?m)^Answer: (.+)$, lower_trim tie heaviest min_responses 2 on_error skip" in shown
    assert "member weight lines answered failed calls failed calls params" in shown
    assert 'small#2 1 0 0 0 0 0 {"seed": 2} coder 2.5 0 0 0 0 0' in shown
    shown = does("show", "steps")
    assert 'accept mean_logprob_over -0.4 and json_schema {"type": "object"} on_error fail timeout_seconds 60' in shown
    assert "calls failed calls escalation params small 0 0 0 0 0 coder 0 0 0 0 0" in shown
    assert "timeout_seconds 300 member lines" in does("show", "safe")
    assert does("try", "panel", "hello") == (
        "member is asked small at once small#2 at once coder at once the answer is the first one with the vote that "
        "weighs most; of votes that weigh the same the one with the heaviest member requests: 1; of members 3"
    )
    assert "coder@stable if small does not answer the answer is that of the first" in does("try", "safe", "hello")
    (tmp_path / "in.jsonl").write_text('{"messages": []}\n{"messages": []}\n')
    tried = does("try", "steps", "in.jsonl")
    assert "coder if small's answer is not good enough, or there is none" in tried
    assert tried.endswith("requests: 2; of members 2 to 4")
    (tmp_path / "tools.jsonl").write_text('{"messages": [], "tools": [{"type": "function"}]}')
    refused = penstock("ensembles", "try", "steps", "tools.jsonl")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("penstock: Request 1: The ensemble 'steps' is a cascade, which takes no tools")
    data = json.loads(does("try", "steps", "in.jsonl", "--json"))["data"]
    assert [(one["member"], one["wave"]) for one in data[1]["asks"]] == [("small", 1), ("coder", 2)]


def test_a_judged_one_is_shown_with_its_judge(penstock: Penstock, tmp_path: Path) -> None:
    def does(*words: str) -> str:
        done = penstock("ensembles", *words)
        assert done.exit_code == 0, (words, done.output)
        return " ".join(done.stdout.split())

    (tmp_path / "best.yaml").write_text(BEST)
    assert does("add", "best.yaml") == "best is v1, of small, small#2, judge: coder"
    assert "best v1 best_of small, small#2, judge: coder" in does("list")
    shown = does("show", "best")
    assert "the answer is the one that the judge names; where it gives no verdict the heaviest member's" in shown
    assert "prompt {request} {answers} Which? reads_chars 2,000 min_responses 1 on_error skip" in shown
    assert "member weight lines" in shown
    assert 'small#2 2 0 0 0 0 0 {"seed": 2} judge: coder 0 0 0 0 0 {"temperature": 0, "max_tokens": 1024}' in shown
    tried = does("try", "best", "hello")
    assert "small#2 at once judge once all have, if two or more answered the answer is the one" in tried
    assert tried.endswith("requests: 1; of members 2, of the judge 1 at most")
    (tmp_path / "mix.yaml").write_text(BEST.replace("best_of", "combine").replace("best", "mix") + "on_error: fail")
    does("add", "mix.yaml")
    assert "what the judge writes of them; where it gives no verdict the request has failed;" in does("show", "mix")
    (tmp_path / "sum.yaml").write_text(
        "{name: sum, kind: combine, method: mean, members: [{model: small}, {model: coder, weight: 2}]}"
    )
    does("add", "sum.yaml")
    shown = does("show", "sum")
    assert "the answer is made of all members' numbers, by their weights term is method mean min_responses 1" in shown
    (tmp_path / "tied.yaml").write_text(VOTE + "tie: judge\njudge: {model: coder}\nmax_cost: 0.02\n")
    does("add", "tied.yaml")
    shown = does("show", "panel")
    assert "of votes that weigh the same the one that the judge names; where it gives no verdict the one with" in shown
    assert "min_responses 2 on_error skip timeout_seconds 300 max_cost 0.02 member weight lines" in shown
    assert "calls failed calls escalation params small 1 0 0 0 0 0" in shown
    assert "judge once all have, if votes are tied the answer" in does("try", "panel", "hello")
    data = json.loads(does("try", "mix", "hello", "--json"))["data"]
    assert [(one["model"], one["wave"]) for one in data[0]["asks"]] == [("small", 1), ("small", 1), ("coder", 2)]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("name: [", "support.yaml is no YAML or JSON, line 1"),
        (YAML + "kind: vote\n", f"support.yaml, line {YAML.count(chr(10)) + 1}: the key 'kind' is there twice."),
        (VOTE.replace("weight: 2.5", "weight: 2, weight: 3"), "support.yaml, line 7: the key 'weight' is there twice."),
        (VOTE + "tie: judge", "A vote with 'tie: judge' needs a judge"),
        ("!!python/object/apply:os.system ['true']", "support.yaml is no YAML or JSON"),
        (
            YAML.replace("route", "blend"),
            "'blend' is no kind of ensemble; there are: route, fallback, vote, cascade, best_of, combine.",
        ),
        (YAML.replace("route", "vote"), "'rules' is not known here"),
        (YAML.replace("default: small", "default: 2026-11-30"), "support.yaml is no YAML or JSON"),
        ("", "An ensemble must be an object."),
        (None, "support.yaml can't be read: No such file or directory."),
    ],
)
def test_what_can_not_be_added_is_one_line(penstock: Penstock, tmp_path: Path, written: str | None, told: str) -> None:
    if written is not None:
        (tmp_path / "support.yaml").write_text(written)
    done = penstock("ensembles", "add", "support.yaml")
    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert told in done.stderr


def test_an_unknown_one_and_a_bad_line_are_one_line_each(penstock: Penstock, tmp_path: Path) -> None:
    for words in (("show", "none"), ("try", "none", "x"), ("remove", "none")):
        done = penstock("ensembles", *words)
        assert (done.exit_code, done.stderr) == (1, "penstock: No such ensemble: 'none'.\n")
    for words in (("show", "../models"), ("remove", "../batches/x"), ("show", ".")):
        done = penstock("ensembles", *words)
        assert done.exit_code == 1
        assert done.stderr.startswith("penstock: There is nothing of this name")
    (tmp_path / "support.yaml").write_text(YAML)
    assert penstock("ensembles", "add", "support.yaml").exit_code == 0
    (tmp_path / "bad.jsonl").write_text('{"body": {}}\n[1]\n')
    done = penstock("ensembles", "try", "support", "bad.jsonl")
    assert (done.exit_code, done.stderr) == (1, "penstock: bad.jsonl, line 2: it is no JSON object.\n")


DESK = """
name: desk
kind: route
members: [{model: small}, {model: coder}]
classifier: {model: small, labels: [billing, code], prompt: "{labels}: {request}"}
rules:
  - {when: {language: [de, fr]}, use: small}
  - {when: {label: code, tools: false}, use: coder}
default: small
"""


def test_one_with_a_classifier_is_shown_and_tried_without_asking_it(penstock: Penstock, tmp_path: Path) -> None:
    def does(*words: str) -> str:
        done = penstock("ensembles", *words)
        assert done.exit_code == 0, (words, done.output)
        return " ".join(done.stdout.split())

    (tmp_path / "desk.yaml").write_text(DESK)
    assert does("add", "desk.yaml") == "desk is v1, of small, coder, classifier: small"
    shown = does("show", "desk")
    assert "1 language de, fr small 2 label code and tools false coder 3 otherwise small" in shown
    assert "labels billing, code prompt {labels}: {request} reads_chars 4,000 on_error skip" in shown
    assert 'classifier: small 0 0 0 0 0 {"temperature": 0, "max_tokens": 1024}' in shown
    texts = ("Wo ist meine Rechnung vom letzten Monat?", "Where is my bill?", "And mine?")
    bodies = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, bodies)))
    assert does("try", "desk", "in.jsonl").endswith(
        "small 1 1 language de, fr by its label 2 the classifier says billing: small; code: coder; else: small"
    )
    [german, other, _] = json.loads(does("try", "desk", "in.jsonl", "--json"))["data"]
    assert (german["use"], german["rule"]) == ("small", 1)
    assert (other["use"], other["by_label"]) == (None, {"billing": "small", "code": "coder", "else": "small"})
    by_vectors = DESK.replace('prompt: "{labels}: {request}"', "by: embeddings, examples: {code: [a loop, a test]}")
    (tmp_path / "near.yaml").write_text(by_vectors)
    assert does("add", "near.yaml") == "desk is v2, of small, coder, classifier: small"
    shown = does("show", "desk")
    assert "by embeddings labels billing, code examples of code a loop | a test reads_chars 1,000" in shown
    assert 'classifier: small 0 0 0 0 0 {"encoding_format": "base64"}' in shown
    assert does("try", "desk", "in.jsonl").endswith("the classifier says billing: small; code: coder; else: small")
    (tmp_path / "bad.yaml").write_text(DESK.replace("label: code", "label: cook"))
    refused = penstock("ensembles", "add", "bad.yaml")
    assert (refused.exit_code, "'cook' is no label; there are: billing, code" in refused.stderr) == (1, True)
