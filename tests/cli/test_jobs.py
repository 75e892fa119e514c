"""`penstock jobs` and `penstock files` over a live API."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
from api.live import arrive, chat, completion, settle_one
from cli.conftest import Penstock

from penstock.formats import input as lines
from penstock.service.core.transaction import Database
from penstock.settings import Settings


def test_requests_become_a_job_and_their_answers_come_back(
    penstock: Penstock, client: httpx.Client, db: Database, settings: Settings, tmp_path: Path
) -> None:
    worker, asked = arrive(db, settings, "gpu", "tiny"), []

    def answer(number: int, custom_id: str) -> tuple[int, bytes]:
        asked.append(custom_id)
        return 200, completion("yes")

    of_batch = lines.write("mine", "/v1/chat/completions", chat() | {"max_tokens": 99}).decode()
    (tmp_path / "in.jsonl").write_text(f"{json.dumps(chat())}\n\n{of_batch}\n")
    made = penstock("jobs", "submit", "in.jsonl", "--prompt", "why?", "--set", "max_tokens=7", "--model", "tiny")
    assert made.exit_code == 0, made.output
    job = made.stdout.strip()
    settle_one(db, settings, worker, answer)
    assert sorted(asked) == ["mine", "request-1", "request-3"]
    assert f"{job} completed" in penstock("jobs", "watch", job).stdout
    found = [json.loads(line) for line in penstock("jobs", "results", job).stdout.splitlines()]
    assert [one["custom_id"] for one in found] == ["request-1", "mine", "request-3"]
    assert penstock("jobs", "results", job, "--merged").stdout == penstock("jobs", "results", job).stdout
    assert penstock("jobs", "list").stdout.splitlines()[1].split()[:2] == [job, "completed"]
    assert penstock("jobs", "delete", job).stdout == f"{job} deleted\n"


def test_what_is_no_request_is_said_in_one_line(penstock: Penstock, tmp_path: Path) -> None:
    files: dict[str, tuple[str, str]] = {
        "none": ("", "Say what to ask"),
        "array": ("[1]\n", "Line 1 of array is no JSON object."),
        "cut": ('{"messages": []}\n{"mess', "Line 2 of cut is no JSON object."),
        "constant": ('{"messages": [], "n": NaN}\n', "Line 1 of constant is no JSON object."),
        "body": ('{"body": 1}', "body: its body is no JSON object."),
    }
    for name, (text, words) in files.items():
        (tmp_path / name).write_text(text)
        done = penstock("jobs", "submit", name)
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1), done.output
        assert words in done.stderr
    (tmp_path / "latin").write_bytes(b'{"messages": "\xe9"}')
    assert penstock("jobs", "submit", "latin").stderr == "penstock: latin is not UTF-8.\n"
    assert "can't be read" in penstock("jobs", "submit", "not-there").stderr


def test_a_file_goes_up_is_listed_comes_back_and_is_deleted(penstock: Penstock, tmp_path: Path) -> None:
    content = lines.write("a", "/v1/completions", {"model": "tiny", "prompt": "x"}) * 9
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(content))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    sent = penstock("files", "upload", "in.jsonl.gz")
    assert sent.exit_code == 0, sent.output
    id = sent.stdout.strip()
    [picture] = json.loads(penstock("files", "upload", "picture.png", "--purpose", "vision", "--json").stdout)["data"]

    def listed(*more: Any) -> list[str]:
        return [row.split()[0] for row in penstock("files", "list", *more).stdout.splitlines()[1:]]

    assert listed() == [picture["id"], id]
    assert listed("--purpose", "batch") == [id]
    assert listed("--limit", 1) == [picture["id"]]
    shown = penstock("files", "show", id).stdout
    assert "in.jsonl" in shown, "it is kept inflated"
    assert f"{len(content):,}" in shown
    assert penstock("files", "download", id).stdout.encode() == content
    assert penstock("files", "download", id, "--output", "back.jsonl").stdout == ""
    assert (tmp_path / "back.jsonl").read_bytes() == content
    assert penstock("files", "delete", id).stdout == f"{id} deleted\n"
    assert listed() == [picture["id"]]
    for arguments in (("show", id), ("download", id), ("delete", id), ("upload", "not-there")):
        refused = penstock("files", *arguments)
        assert (refused.exit_code, refused.stdout, len(refused.stderr.splitlines())) == (1, "", 1)


def test_an_address_may_have_its_v1_as_openais_sdk_wants_it(penstock: Penstock, client: httpx.Client) -> None:
    root = str(client.base_url).rstrip("/").removesuffix("/v1")
    for url in (root, f"{root}/", f"{root}/v1", f"{root}/v1/"):
        listed = penstock("jobs", "list", "--url", url)
        assert listed.exit_code == 0, listed.output
