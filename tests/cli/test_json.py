"""`--json`: each command that has it prints one JSON document, and nothing else, on standard output."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import httpx
import pytest
from api.live import arrive, chat, completion, create, settle_one, upload
from cli.conftest import Penstock
from pydantic import SecretStr

from penstock.blobs.store import Blobs
from penstock.cli.reference import commands
from penstock.formats import input as lines
from penstock.service.control import erasure
from penstock.service.core.transaction import Database
from penstock.service.webhooks import secret_keys
from penstock.settings import Settings

SHOWN = {
    "settings": ("list", "settings"),
    "usage": ("page", "usage"),
    "audit": ("list", "audit"),
    "validate": ("file.validation", "validate in.jsonl"),
    "batches submit": ("batch", "batches submit in.jsonl"),
    "batches estimate": ("batch.estimate", "batches estimate in.jsonl"),
    "batches list": ("list", "batches list"),
    "batches show": ("batch", "batches show {batch}"),
    "batches watch": ("job", "batches watch {job}"),
    "batches pause": ("job", "batches pause {open}"),
    "batches resume": ("job", "batches resume {open}"),
    "batches set": ("job", "batches set {open} --lane flex"),
    "batches cancel": ("batch", "batches cancel {batch}"),
    "batches retry": ("job", "batches retry {job}"),
    "batches lines": ("list", "batches lines {job}"),
    "batches errors": ("list", "batches errors {job}"),
    "batches delete": ("batch", "batches delete {batch}"),
    "jobs submit": ("job", "jobs submit --prompt hello --model tiny"),
    "jobs list": ("list", "jobs list"),
    "jobs show": ("job", "jobs show {job}"),
    "jobs watch": ("job", "jobs watch {job}"),
    "jobs pause": ("job", "jobs pause {open}"),
    "jobs resume": ("job", "jobs resume {open}"),
    "jobs set": ("job", "jobs set {open} --window 2h"),
    "jobs cancel": ("job", "jobs cancel {open}"),
    "jobs retry": ("job", "jobs retry {job}"),
    "jobs delete": ("job", "jobs delete {open}"),
    "files upload": ("list", "files upload in.jsonl"),
    "files list": ("list", "files list --purpose batch"),
    "files show": ("file", "files show {file}"),
    "files delete": ("file", "files delete {file}"),
    "keys create": ("organization.admin_api_key", "keys create another"),
    "keys list": ("list", "keys list"),
    "keys rotate": ("organization.admin_api_key", "keys rotate {key}"),
    "keys revoke": ("organization.admin_api_key.deleted", "keys revoke {key}"),
    "limits show": ("limits", "limits show default"),
    "limits mine": ("list", "limits mine"),
    "limits set": ("limits", "limits set default files=1000"),
    "limits budget": ("limits", "limits budget default none"),
    "models list": ("list", "models list"),
    "models show": ("model", "models show tiny"),
    "models add": ("model", "models add another"),
    "models slo": ("model", "models slo tiny --itl-p95-ms 40"),
    "models price": ("price", "models price tiny --input 0.15"),
    "models prices": ("list", "models prices"),
    "models versions": ("list", "models versions chat"),
    "models alias": ("model_alias", "models alias chat v1=100"),
    "models promote": ("model_alias", "models promote chat@v2"),
    "models demand": ("model_alias", "models demand chat --none"),
    "models rollback": ("model_alias", "models rollback chat"),
    "models repin": ("repin", "models repin chat@v2"),
    "models retire": ("model_version", "models retire chat@v2"),
    "ensembles add": ("ensemble", "ensembles add one.json"),
    "ensembles list": ("list", "ensembles list"),
    "ensembles show": ("ensemble", "ensembles show one"),
    "ensembles try": ("list", "ensembles try one hello"),
    "ensembles remove": ("ensemble", "ensembles remove one"),
    "secrets status": ("list", "secrets status"),
    "secrets rotate": (None, "secrets rotate"),
    "tenants list": ("list", "tenants list"),
    "tenants create": ("tenant", "tenants create acme"),
    "tenants weight": ("tenant", "tenants weight acme 2"),
    "tenants cache": ("tenant", "tenants cache acme on"),
    "tenants retention": ("tenant", "tenants retention acme --files 7"),
    "tenants erase": ("tenant.erasure", "tenants erase acme --yes"),
    "webhooks list": ("list", "webhooks list"),
    "webhooks create": ("webhook_endpoint", "webhooks create http://127.0.0.1:9/hook"),
    "webhooks rotate": ("webhook_endpoint", "webhooks rotate {endpoint}"),
    "webhooks enable": ("webhook_endpoint", "webhooks enable {endpoint}"),
    "webhooks deliveries": ("list", "webhooks deliveries"),
    "webhooks replay": (None, "webhooks replay --status failed"),
    "webhooks delete": ("webhook_endpoint.deleted", "webhooks delete {endpoint}"),
}
"""By command: the `object` of its document, and a command line, in an order in which all of them can be asked."""
TRIED_ELSEWHERE = {"doctor", "evals", "pools", "tune", "workers", "webhooks test"}
"""In rooms of their own; and the last needs a worker that sends."""


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Webhooks may go to this machine, and their secrets have a key."""
    key = secret_keys.new_key()
    monkeypatch.setenv("PENSTOCK_SECRET_KEYS", key)
    quick = {"key_cache_seconds": 0.0, "tick_seconds": 0.1}
    return settings.model_copy(update={"outbound_allow": "127.0.0.0/8", "secret_keys": SecretStr(key), **quick})


def test_each_command_that_has_it_is_tried_here() -> None:
    with_json = {name for name, one in commands() if any("--json" in param.opts for param in one.params)}
    assert {name for name in with_json if not TRIED_ELSEWHERE & {name, name.split()[0]}} == SHOWN.keys()


def test_a_command_prints_one_json_document_alone(
    penstock: Penstock, client: httpx.Client, db: Database, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines.write("a", "/v1/chat/completions", chat() | {"model": "tiny"}))
    one = {"name": "one", "kind": "route", "members": [{"model": "tiny"}], "default": "tiny"}
    (tmp_path / "one.json").write_text(json.dumps(one))
    worker = arrive(db, settings, "gpu", "tiny")
    ids = {
        "job": penstock("jobs", "submit", "--prompt", "one", "--prompt", "two", "--model", "tiny").stdout.strip(),
        "batch": create(client, upload(client)["id"])["id"],
        "file": upload(client)["id"],
        "key": json.loads(penstock("keys", "create", "test", "--json").stdout)["id"],
    }
    settle_one(
        db, settings, worker, lambda number, custom_id: (200, completion("yes")) if number == 1 else (400, b"{}")
    )
    for source in ("/models/one", "/models/two"):
        penstock("models", "add", "chat", "--source", source)
    ids["open"] = client.post("/v1/jobs", json={"model": "tiny", "body": chat()}).json()["id"]
    stop = threading.Event()
    keeper = threading.Thread(target=erasure.run, args=(db, Blobs(settings.blob_url), settings, stop))
    keeper.start()
    try:
        ids["endpoint"] = penstock("webhooks", "create", "http://127.0.0.1:9/hook").stdout.split()[0]
        for kind, line in SHOWN.values():
            done = penstock(*line.format(**ids).split(), "--json")
            assert done.exit_code == 0, (line, done.output)
            document = json.loads(done.stdout)
            assert document.get("object") == kind, line
            assert (kind in ("list", "page")) == isinstance(document.get("data"), list)
    finally:
        stop.set()
        keeper.join(30)


def test_an_error_leaves_standard_output_empty(penstock: Penstock) -> None:
    for line in ("batches show batch_none", "keys revoke key_none", "files show file-none", "limits show nobody"):
        done = penstock(*line.split(), "--json")
        assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), line
