"""`penstock keys`, `models` and `settings`: what an operator does beside the API."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import httpx
import pytest
from cli.conftest import Penstock
from typer.testing import CliRunner

from penstock.blobs.store import Blobs
from penstock.cli.commands.settings import page
from penstock.cli.main import app
from penstock.domain.models.tuning import Tuning
from penstock.domain.models.version import Definition
from penstock.service.control import erasure
from penstock.service.core.transaction import Database
from penstock.service.models import tunings
from penstock.settings import Settings

ROOT = Path(__file__).parents[2]


def test_a_key_is_shown_once_and_works_until_it_is_revoked(penstock: Penstock, client: httpx.Client) -> None:
    made = penstock("keys", "create", "for tests", "--tenant", "acme")
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert key.startswith("sk-penstock-")
    headers = {"authorization": f"Bearer {key}"}
    assert client.get("/v1/models", headers=headers).status_code == 200
    listed = penstock("keys", "list", "--tenant", "acme").stdout
    assert key not in listed
    assert f"…{key[-4:]}" in listed
    id = listed.splitlines()[1].split()[0]
    assert penstock("keys", "revoke", id, "--tenant", "acme").exit_code == 0
    assert client.get("/v1/models", headers=headers).status_code == 401
    again = penstock("keys", "revoke", id, "--tenant", "acme")
    assert (again.exit_code, again.stderr) == (1, f"penstock: No such key: '{id}'.\n")


def test_a_key_has_a_role_scopes_and_an_end(penstock: Penstock, client: httpx.Client) -> None:
    made = penstock(
        "keys", "create", "narrow", "--viewer", "--scope", "files", "--scope", "batches", "--expires-in", "30d"
    )
    headers = {"authorization": f"Bearer {made.stdout.strip()}"}
    assert client.get("/v1/files", headers=headers).status_code == 200
    assert client.get("/v1/webhook_endpoints", headers=headers).status_code == 403
    assert client.post("/v1/jobs", headers=headers, json={}).status_code == 403
    row = next(line for line in penstock("keys", "list").stdout.splitlines() if "narrow" in line)
    assert "viewer" in row
    assert "batches files" in row


def test_a_key_for_some_models_is_rotated(penstock: Penstock, client: httpx.Client) -> None:
    penstock("models", "add", "tiny")
    penstock("models", "add", "secret")
    first = penstock("keys", "create", "narrow", "--models", "tiny").stdout.strip()
    row = next(line for line in penstock("keys", "list").stdout.splitlines() if "narrow" in line)
    second = penstock("keys", "rotate", row.split()[0], "--overlap", "0")
    assert second.exit_code == 0, second.output
    headers = {"authorization": f"Bearer {second.stdout.strip()}"}
    assert [one["id"] for one in client.get("/v1/models", headers=headers).json()["data"]] == ["tiny"]
    assert client.get("/v1/models", headers={"authorization": f"Bearer {first}"}).status_code == 401
    again = penstock("keys", "rotate", row.split()[0])
    assert (again.exit_code, "it can't be rotated" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--scope", "everything"), "A scope is one of files, batches, inference, webhooks."),
        (("--expires-in", "soon"), "--expires-in is a number with h, d or w, as 30d, not 'soon'."),
        (("--expires-in", "0d"), "A key's life is a time up to ten years."),
        (("--expires-in", "999999w"), "A key's life is a time up to ten years."),
    ],
)
def test_what_a_key_can_not_be_is_one_line(penstock: Penstock, arguments: tuple[str, ...], words: str) -> None:
    done = penstock("keys", "create", "odd", *arguments)
    assert (done.exit_code, done.stderr) == (1, f"penstock: {words}\n")


def test_odd_names_are_refused(penstock: Penstock) -> None:
    for arguments in (("",), ("x" * 201,), ("a\nb",), ("good", "--tenant", "../etc"), ("good", "--tenant", "")):
        done = penstock("keys", "create", *arguments)
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)


def test_a_model_that_is_added_is_known(penstock: Penstock, client: httpx.Client) -> None:
    assert penstock("models", "add", "org/model").stdout == "org/model is known now\n"
    assert penstock("models", "add", "org/model").stdout == "org/model is known already\n"
    assert penstock("models", "list").stdout.splitlines()[1].split() == ["org/model", "0"]
    assert client.get("/v1/models/org/model").status_code == 200


def test_what_was_tuned_is_shown_with_the_version_that_is_started_so(penstock: Penstock, db: Database) -> None:
    penstock("models", "add", "chat", "--source", "org/chat", "--engine-arg=--max-num-seqs=64")
    same, slower = (Definition("org/chat", "vllm", (f"--max-num-seqs={n}",)) for n in (64, 4))
    works = Tuning("chat", same, "H200", None, True, 30_000.0, 1_000_000, 62.5, None, 75 * 1024**3)
    db.run(tunings.record, [works, Tuning("chat", slower, "H200", None, False, 900.0)])
    shown = " ".join(penstock("models", "show", "chat").stdout.split())
    assert "chat@v1 H200 30,000 1,000,000 62.5 s 75.00 GiB --max-num-seqs=64 (recommended)" in shown
    assert "--max-num-seqs=4" not in shown
    db.run(tunings.record, [Tuning("chat", same, "A10", None, True, trouble="no memory")])
    shown = " ".join(penstock("models", "show", "chat@v1").stdout.split())
    assert "chat@v1 A10 --max-num-seqs=64 (no memory)" in shown
    [found] = json.loads(penstock("models", "show", "chat", "--json").stdout)["versions"]
    assert [one["tokens_per_second"] for one in found["tunings"]] == [None, 30_000.0]


def test_a_model_has_a_price_and_what_is_not_said_stays(penstock: Penstock, client: httpx.Client) -> None:
    penstock("models", "add", "tiny")
    arguments = ("--input", "0.15", "--output", "0.6", "--currency", "eur")
    set = " ".join(penstock("models", "price", "tiny", *arguments).stdout.split())
    assert "tiny: 0.15 in, 0.15 cached, 0.6 out per million tokens, 0 per GPU-second, in EUR from " in set
    penstock("models", "price", "tiny", "--cached-input", "0.015", "--gpu-second", "0.0008")
    listed = " ".join(penstock("models", "prices").stdout.split())
    assert "0.15 in, 0.015 cached, 0.6 out per million tokens, 0.0008 per GPU-second, in EUR" in listed
    for arguments, words in (
        (("tiny",), "Say --input"),
        (("tiny", "--input", "0.0000001"), "at most six decimals"),
        (("tiny", "--input", "1", "--currency", "USD"), "All prices are in EUR"),
        (("none", "--input", "1"), "No such model: 'none'."),
    ):
        refused = penstock("models", "price", *arguments)
        assert (refused.exit_code, words in refused.stderr) == (1, True), refused.output


def test_a_model_is_promised_latencies_that_are_shown_and_cleared(penstock: Penstock, client: httpx.Client) -> None:
    penstock("models", "add", "tiny")
    assert penstock("models", "slo", "tiny", "--ttft-p95-ms", 250).stdout == "tiny: ttft p95 250 ms\n"
    assert penstock("models", "slo", "tiny", "--itl-p95-ms", 40).stdout == "tiny: ttft p95 250 ms, itl p95 40 ms\n"
    assert penstock("models", "list").stdout.splitlines()[1].split() == ["tiny", "0", "250", "ms", "40", "ms"]
    listed = client.get("/v1/models/tiny").json()
    assert (listed["ttft_p95_ms"], listed["itl_p95_ms"]) == (250, 40)
    cleared = penstock("models", "slo", "tiny", "--ttft-p95-ms", 0, "--itl-p95-ms", 0)
    assert cleared.stdout == "tiny: nothing promised\n"
    for arguments, words in (
        (("tiny",), "Say --ttft-p95-ms"),
        (("none", "--itl-p95-ms", 1), "No such model: 'none'."),
        (("tiny", "--itl-p95-ms", 600_001), "is a number of milliseconds"),
    ):
        refused = penstock("models", "slo", *arguments)
        assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
        assert words in refused.stderr


def test_tenants_are_listed_and_weighed(penstock: Penstock) -> None:
    penstock("keys", "create", "for tests", "--tenant", "acme")
    assert penstock("tenants", "weight", "acme", 2.5).stdout == "acme weighs 2.5\n"
    rows = [line.split()[:2] for line in penstock("tenants", "list").stdout.splitlines()[1:]]
    assert rows == [["acme", "2.5"], ["default", "1"]]
    for weight in ("0", "nan", "inf", "1e9"):
        refused = penstock("tenants", "weight", "acme", weight)
        assert refused.stderr == "penstock: A weight is a number from 0.001 to 1000.\n"
    assert penstock("tenants", "weight", "none", 1).stderr == "penstock: No such tenant: 'none'.\n"


def test_a_tenants_answers_are_kept_if_the_operator_says_so(penstock: Penstock) -> None:
    penstock("keys", "create", "for tests", "--tenant", "acme")

    def caches() -> dict[str, str]:
        return {line.split()[0]: line.split()[2] for line in penstock("tenants", "list").stdout.splitlines()[1:]}

    assert caches()["acme"] == "off"
    assert penstock("tenants", "cache", "acme", "on").stdout == "the cache is on for acme\n"
    assert caches()["acme"] == "on"
    assert penstock("tenants", "cache", "acme", "off").stdout == "the cache is off for acme\n"
    assert caches()["acme"] == "off"
    assert penstock("tenants", "cache", "none", "on").stderr == "penstock: No such tenant: 'none'.\n"
    assert penstock("tenants", "cache", "acme", "maybe").exit_code == 2


def test_without_a_database_a_key_command_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PENSTOCK_DATABASE_URL", raising=False)
    done = CliRunner().invoke(app, ["keys", "list", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert "set PENSTOCK_DATABASE_URL" in done.stderr
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", "postgresql://postgres@127.0.0.1:1/none")
    assert CliRunner().invoke(app, ["keys", "list"]).stderr == "penstock: The database is away; try again shortly.\n"


def test_the_page_of_limits_is_what_the_settings_are() -> None:
    assert (ROOT / "docs" / "limits.md").read_text() == page(), "run: penstock settings --markdown > docs/limits.md"


def test_settings_never_show_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_BOOTSTRAP_KEY", "sk-penstock-a-secret")
    monkeypatch.setenv("PENSTOCK_REDIS_URL", "redis://:a-secret@127.0.0.1/0")
    shown = CliRunner().invoke(app, ["settings"])
    assert shown.exit_code == 0
    assert "a-secret" not in shown.stdout
    assert "(set)" in shown.stdout


def test_the_audit_says_what_the_command_line_did(penstock: Penstock) -> None:
    penstock("tenants", "create", "acme")
    penstock("tenants", "weight", "acme", "2")
    penstock("models", "add", "tiny")
    listed = penstock("audit", "--tenant", "acme").stdout.splitlines()[1:]
    assert [line.split()[3:7] for line in listed] == [
        ["acme", "cli", "tenant.updated", "acme"],
        ["acme", "cli", "tenant.created", "acme"],
    ]
    assert '{"weight": 2.0}' in listed[0]
    assert "model.added" in penstock("audit", "--limit", "1").stdout
    assert penstock("audit", "--since", "2100-01-01").stdout.splitlines()[1:] == []


def test_how_long_a_tenants_things_are_kept_is_set_and_listed(penstock: Penstock) -> None:
    penstock("tenants", "create", "acme")
    done = penstock("tenants", "retention", "acme", "--batches", 30, "--files", 7)
    assert done.stdout == "acme: batches are kept 30 days, files 7 days\n"
    done = penstock("tenants", "retention", "acme", "--files", "default")
    assert done.stdout == "acme: batches are kept 30 days, files default\n"
    row = next(line for line in penstock("tenants", "list").stdout.splitlines() if line.startswith("acme"))
    assert "30 days" in row
    for days, words in (("0", "A retention is 1 to 3650 days, or none."), ("soon", "A retention is a number of days")):
        refused = penstock("tenants", "retention", "acme", "--batches", days)
        assert (refused.exit_code, words in refused.stderr) == (1, True)


def test_a_tenant_is_erased_after_a_question_or_without_and_the_command_shows_how_far_it_is(
    penstock: Penstock, settings: Settings, db: Database
) -> None:
    penstock("keys", "create", "first", "--tenant", "acme")
    asked = penstock("tenants", "erase", "acme")  # nobody answers
    assert (asked.exit_code, asked.stdout.splitlines()[0]) == (1, "acme has 1 api keys")
    assert penstock("keys", "list", "--tenant", "acme").stdout.count("first") == 1
    stop, quick = threading.Event(), settings.model_copy(update={"key_cache_seconds": 1.0, "tick_seconds": 0.1})
    keeper = threading.Thread(target=erasure.run, args=(db, Blobs(settings.blob_url), quick, stop))
    keeper.start()
    try:
        done = penstock("tenants", "erase", "acme", "--yes")
    finally:
        stop.set()
        keeper.join(30)
    assert done.exit_code == 0, done.output
    first, closed, *_, last = done.stdout.splitlines()
    id = closed.split(":")[0]
    assert (first, closed) == ("acme has 1 api keys", f"{id}: acme is closed")
    assert last.startswith(f"{id}: done, ")
    assert "1 api keys" in last
    assert penstock("tenants", "erase", "acme", "--yes").stderr == "penstock: No such tenant: 'acme'.\n"
    refused = penstock("tenants", "erase", "default", "--yes")
    assert (refused.exit_code, "it can't be erased" in refused.stderr) == (1, True)
