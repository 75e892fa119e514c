"""Access: who may see what; health and metrics; and the API while its servers are away."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from api.live import KEY, arrive, batch_of, chat, create, error, http, log_lines, serving, upload
from e2e.live import until
from pydantic import SecretStr
from structlog.testing import capture_logs

from penstock.domain.engine_trouble import EngineTrouble
from penstock.service.admin import keys
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings import Settings

ROUTES = ["/v1/files", "/v1/files/x", "/v1/files/x/content", "/v1/batches", "/v1/jobs/x", "/v1/models"]


WRONG_KEYS = [None, "Bearer wrong", "Bearer", "Basic abc", KEY, "Bearer \xe9"]


def test_without_a_valid_key_everything_is_401(url: str, subtests: pytest.Subtests) -> None:
    for route in ROUTES:
        for header in WRONG_KEYS:
            with subtests.test(route=repr(route)[:60], header=repr(header)[:60]):
                headers = {"authorization": header.encode("latin-1")} if header is not None else {}
                with httpx.Client(base_url=url, trust_env=False) as nobody:
                    assert error(nobody.get(route, headers=headers), 401)["code"] == "invalid_api_key"
                    error(nobody.post("/v1/files", headers=headers), 401)
                    error(nobody.post("/v1/batches", headers=headers, json={}), 401)


def test_another_tenants_things_are_not_there(client: httpx.Client, stranger: httpx.Client, model: str) -> None:
    file = upload(client)["id"]
    batch = create(client, file)["id"]
    job = client.post("/v1/jobs", json={"model": model, "body": chat()}).json()["id"]
    for path in (f"files/{file}", f"files/{file}/content", f"batches/{batch}", f"jobs/{job}"):
        error(stranger.get(f"/v1/{path}"), 404)
    error(stranger.delete(f"/v1/files/{file}"), 404)
    error(stranger.post(f"/v1/batches/{batch}/cancel"), 404)
    error(stranger.post(f"/v1/jobs/{job}/cancel"), 404)
    error(stranger.get(f"/v1/jobs/{job}", params={"wait": 5}), 404)
    error(stranger.get("/v1/batches", params={"after": batch}), 404)
    assert error(stranger.post("/v1/batches", json=batch_of(file)), 400)["param"] == "input_file_id"
    for route in ("files", "batches", "jobs"):
        assert stranger.get(f"/v1/{route}").json()["data"] == []
    assert client.get(f"/v1/files/{file}").status_code == 200


def test_a_revoked_key_is_refused_from_then_on(url: str, db: Database) -> None:
    id, key = db.run(keys.create, "tenant", "name")
    with http(url, key) as one:
        assert one.get("/v1/models").status_code == 200
        db.run(keys.revoke, "tenant", id)
        error(one.get("/v1/models"), 401)


def test_a_revoked_bootstrap_key_stays_so_after_a_restart(settings: Settings, db: Database) -> None:
    with serving(settings) as url, http(url) as client:
        assert client.get("/v1/models").status_code == 200
    [key] = db.run(keys.page, keys.BOOTSTRAP_TENANT)
    db.run(keys.revoke, keys.BOOTSTRAP_TENANT, key.id)
    with serving(settings) as url, http(url) as client:
        error(client.get("/v1/models"), 401)


def test_ready_needs_postgres_and_blobs_and_live_needs_nothing(client: httpx.Client) -> None:
    for route in ("live", "ready"):
        answer = client.get(f"/health/{route}")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "missing": []})


def test_work_says_what_is_missing_until_all_are_there(client: httpx.Client, db: Database, settings: Settings) -> None:
    def missing(model: str | None = None) -> list[str]:
        answer = client.get("/health/work", params={"model": model} if model else {})
        assert answer.status_code == (503 if answer.json()["missing"] else 200)
        return answer.json()["missing"]

    assert missing() == ["keeper", "io worker", "gpu worker"]
    arrive(db, settings, "keeper")
    arrive(db, settings, "io")
    assert missing("tiny") == ["gpu worker for 'tiny'"]
    worker = arrive(db, settings, "gpu", "tiny")
    db.run(work.mark, worker, "starting", settings, EngineTrouble(2, "ValueError: no such folder /secret"))
    failing = " (its engine did not start, 2 times in a row: see its log)"
    assert (missing("tiny"), missing()) == ([f"gpu worker for 'tiny'{failing}"], [f"gpu worker{failing}"])
    db.run(work.mark, worker, "drained", settings)
    assert missing("tiny") == ["gpu worker for 'tiny' (drained)"]
    db.run(work.mark, worker, "gone", settings)
    arrive(db, settings, "gpu", "tiny")
    assert missing("tiny") == missing() == []
    assert missing("other") == ["gpu worker for 'other'"]


def test_without_its_database_the_api_says_503_and_when_to_come_back(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://postgres@127.0.0.1:1/none", "bootstrap_key": None})
    with serving(away) as url, http(url) as client:
        refused = client.get("/v1/models")
        assert error(refused, 503)["code"] == "unavailable"
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/health/live").status_code == 200
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["missing"]) == (503, ["postgres"])
        assert client.get("/health/work").json()["missing"] == ["postgres"]
        assert "penstock_database_up 0.0" in client.get("/metrics").text


def test_a_blob_store_that_takes_nothing_is_told_until_it_does(settings: Settings, tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    root.mkdir()
    (root / "ready").write_bytes(b"a file stands in the way of what is written")
    with serving(settings) as url, http(url) as client:
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["missing"]) == (503, ["blobs"])
        [line] = [line for line in log_lines() if "blob_store_" in line]
        assert "Not a directory" in line
        (root / "ready").unlink()
        until(lambda: client.get("/health/ready").status_code == 200, "the store is back")
        assert not [path for path in root.rglob("*") if path.is_file()], "what was tried is gone"


def test_without_redis_everything_goes_on(settings: Settings, model: str) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with serving(away) as url, http(url) as client:
        answer = client.post("/v1/batches", json=batch_of(upload(client)["id"]))
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() < 1
        assert client.post("/v1/jobs", json={"model": model, "body": chat()}).status_code == 200


def test_metrics_count_requests_by_route_and_show_the_queue(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    client.post("/v1/jobs", json={"model": model, "body": chat()})
    arrive(db, settings, "io")
    client.get("/v1/files/none")
    text = client.get("/metrics").text
    assert 'penstock_http_request_seconds_count{method="GET",route="/v1/files/{file_id}",status="404"}' in text
    assert f'penstock_backlog_lines{{lane="standard",model="{model}",state="queued"}} 1.0' in text
    assert 'penstock_live_workers{kind="io",model="",state="ready"} 1.0' in text
    assert "penstock_hints_unsaid_total" in text
    assert 'penstock_open_leases{kind="slice"} 0.0' in text
    assert "file-none" not in text


def test_metrics_show_what_is_open_and_the_process_and_where_to_scrape(
    client: httpx.Client, model: str, url: str
) -> None:
    client.post("/v1/jobs", json={"model": model, "body": chat()})
    text = client.get("/metrics").text
    assert 'penstock_batches{kind="job",lane="standard",state="in_progress"} 1.0' in text
    assert f'penstock_workers_ready{{model="{model}"}} 0.0' in text
    assert f'penstock_batches_at_risk{{lane="standard",model="{model}"}} 0.0' in text
    assert f'penstock_oldest_waiting_seconds{{lane="standard",model="{model}"}}' in text
    assert 'penstock_batches_ended_total{kind="batch",lane="flex",state="expired"} 0.0' in text
    assert 'penstock_batch_seconds_bucket{lane="flex",le="+Inf"} 0.0' in text
    assert "penstock_blobs_up 1.0" in text
    assert 'penstock_api_connections{of="most"} 10.0' in text
    assert "penstock_build_info{" in text

    labels = {"role": "api", "__scheme__": "http", "__metrics_path__": "/metrics"}
    assert client.get("/metrics/targets").json() == [{"targets": [urlsplit(url).netloc], "labels": labels}]


def test_metrics_are_not_for_everyone(client: httpx.Client, settings: Settings) -> None:
    closed = settings.model_copy(update={"metrics_open": False})
    with serving(closed) as url, http(url) as other:
        for path in ("/metrics", "/metrics/targets"):
            assert "PENSTOCK_METRICS_TOKEN" in error(other.get(path), 403)["message"], "from loopback, too"
    guarded = closed.model_copy(update={"metrics_token": SecretStr("a token, one-before")})
    with serving(guarded) as url, http(url) as other:
        error(other.get("/metrics"), 401)
        error(other.get("/metrics/targets"), 401)
        for token, status in (("a token", 200), ("one-before", 200), ("a token, one-before", 401), ("x", 401)):
            assert other.get("/metrics", headers={"authorization": f"Bearer {token}"}).status_code == status


def test_no_browser_runs_frames_or_guesses_an_answer(client: httpx.Client) -> None:
    for path, policy in (
        ("/v1/models", True),
        ("/v1/files/none", True),
        ("/health/live", True),
        ("/docsx", True),
        ("/docs", False),
    ):
        headers = client.get(path).headers
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        policies = headers.get_list("content-security-policy")
        assert len(policies) == 1
        assert ("default-src 'none'; frame-ancestors 'none'" in policies) is policy


def test_the_page_for_people_runs_only_what_it_names_and_needs_no_other_host(client: httpx.Client) -> None:
    """As a browser reads it: each script and style of the page is served by us, allowed by its policy, and its hash."""
    page = client.get("/docs")
    policy = {
        name: sources
        for name, *sources in (part.split() for part in page.headers["content-security-policy"].split(";"))
    }
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == ["'none'"]
    assert policy["connect-src"] == ["'self'"]
    assert policy["script-src"][0] == policy["style-src"][0] == "'self'"
    assert {"'unsafe-inline'", "'unsafe-eval'"}.isdisjoint(policy["script-src"])
    assert not re.search(r"https?:|//[a-z]", page.text + page.headers["content-security-policy"])
    tags = re.findall(r"<(script|link)\b([^>]*)>(?:([^<]*)</script>)?", page.text)
    served = []
    for tag, attributes, text in tags:
        found = dict(re.findall(r'([a-z]+)="([^"]*)"', attributes))
        if where := found.get("src") or (found["href"] if found.get("rel") == "stylesheet" else ""):
            asset = client.get(httpx.URL(page.url).join(where))
            assert asset.status_code == 200
            digest = base64.b64encode(hashlib.sha384(asset.content).digest()).decode()
            assert found["integrity"] == f"sha384-{digest}"
            kind = "text/javascript" if tag == "script" else "text/css"
            assert asset.headers["content-type"].partition(";")[0] == kind, "nosniff: no browser takes it otherwise"
            assert asset.headers["content-encoding"] == "gzip"
            assert "immutable" in asset.headers["cache-control"]
            plain = client.get(asset.url, headers={"accept-encoding": "identity"})
            assert "content-encoding" not in plain.headers
            assert plain.content == asset.content
            assert not re.search(rb"@import|url\((?![\"']?data:)", asset.content if tag == "link" else b"")
            served.append(tag)
        elif tag == "script":
            own = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{own}'" in policy["script-src"]
        else:
            assert found["href"] == "data:,"
    assert served == ["link", "script"]
    assert not re.search(r"\son[a-z]+=|style=", page.text)
    assert 'url: "openapi.json"' in page.text
    for other in ("/docs/oauth2-redirect", "/docs/docs_page.py", "/docs/..%2fdocs_page.py", "/redoc"):
        assert client.get(other).status_code == 404


def test_log_lines_name_the_tenant_and_wrong_keys_share_some_of_them(settings: Settings) -> None:
    with capture_logs() as logs, serving(settings) as url, http(url) as client:
        client.get("/v1/models")
        with http(url, "sk-penstock-wrong") as wrong:
            for _ in range(30):
                error(wrong.get("/v1/models"), 401)
    lines = [line for line in logs if line["event"] == "request"]
    assert [line["tenant"] for line in lines if line["status"] == 200] == ["default"]
    refused = [line for line in lines if line["status"] == 401]
    assert 1 <= len(refused) < 15
    assert sum(line["refused"] for line in refused) <= 30
    assert "sk-penstock" not in str(logs)


def test_the_pages_of_the_api_describe_it(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 200
    page = client.get("/openapi.json").json()
    told = page["paths"]["/health/work"]["get"]["responses"]
    assert told["503"]["content"]["application/json"]["schema"] == told["200"]["content"]["application/json"]["schema"]
    assert "4XX" in told
    assert {"/v1/files", "/v1/batches", "/v1/jobs", "/health/work", "/metrics"} <= set(page["paths"])
    for path, methods in page["paths"].items():
        for method, route in methods.items():
            assert route.get("description"), f"{method} {path} has no description"
    names = set(page["components"]["schemas"])
    refs = set(re.findall(r'"#/components/schemas/([^"]+)"', client.get("/openapi.json").text))
    assert refs <= names
