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


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("name: [", "support.yaml is no YAML or JSON, line 1"),
        ("!!python/object/apply:os.system ['true']", "support.yaml is no YAML or JSON"),
        (YAML.replace("route", "vote"), "'vote' is not there yet; there is: route."),
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
    (tmp_path / "support.yaml").write_text(YAML)
    assert penstock("ensembles", "add", "support.yaml").exit_code == 0
    (tmp_path / "bad.jsonl").write_text('{"body": {}}\n[1]\n')
    done = penstock("ensembles", "try", "support", "bad.jsonl")
    assert (done.exit_code, done.stderr) == (1, "penstock: bad.jsonl, line 2: it is no JSON object.\n")
