"""What is there before the API is asked anything at random: one thing of each kind, and more of what can be deleted."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

import httpx

MODEL: Final = "tiny"
IDLE: Final = "idle"
"""A model without a worker: what asks it stays open, to be paused, changed or cancelled."""
_CHAT: Final = "/v1/chat/completions"
_EACH: Final = 8


class Receiver:
    """A receiver of webhooks on loopback, which thanks for everything."""

    def __init__(self) -> None:
        """Listen at once, on any free port."""
        self._server = HTTPServer(("127.0.0.1", 0), _Thanks)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where events go."""
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        """Take nothing more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Thanks(BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # the library's name
        """Thank."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


def make(client: httpx.Client, hook: str) -> dict[str, dict[str, Any]]:
    """Make them; ids by the name of the path's parameter, `made` for use and `kept` from it.

    Beside them `values` of a body's fields, by name, and what each path of a waiting call is `asked`.
    """
    made: dict[str, list[str]] = defaultdict(list)

    def post(path: str, name: str, **asked: Any) -> dict[str, Any]:
        answer = client.post(path, **asked)
        answer.raise_for_status()
        thing: dict[str, Any] = answer.json()
        made[name].append(thing["id"])
        return thing

    body, refused = _chat(MODEL, "hello"), _chat(MODEL, "[[status 400]]")
    line = _line(body)
    ask = {"endpoint": _CHAT, "completion_window": "24h"}
    for _ in range(_EACH):
        for one in (body, refused, _chat(IDLE, "hello")):
            file = post("/v1/files", "file_id", files={"file": ("in.jsonl", _line(one))}, data={"purpose": "batch"})
            post("/v1/batches", "batch_id", json=ask | {"input_file_id": file["id"]})
            post("/v1/jobs", "job_id", json={"body": one})
        new = {"filename": "in.jsonl", "purpose": "batch", "bytes": len(line), "mime_type": "application/jsonl"}
        upload = post("/v1/uploads", "upload_id", json=new)
        post(f"/v1/uploads/{upload['id']}/parts", "part_ids", files={"data": line})
        post("/v1/webhook_endpoints", "endpoint_id", json={"url": hook, "name": "fuzz"})
    for name in ("fuzz-a", "fuzz-b", "fuzz-gone"):
        post("/v1/admin/tenants", "tenant_id", json={"name": name})
        key = client.post("/v1/admin/api_keys", json={"tenant": name, "name": "fuzz"})
        key.raise_for_status()
        made["key_id"].append(key.json()["id"])
    erasure = client.delete("/v1/admin/tenants/fuzz-gone")
    erasure.raise_for_status()
    made["erasure_id"].append(erasure.json()["id"])
    made["model"].append(MODEL)
    workers = client.get("/v1/workers").json()["data"]
    made["worker_id"] += [one["id"] for one in workers if one["kind"] == "keeper"]  # it takes no orders: all goes on
    own = [one["id"] for one in client.get("/v1/admin/api_keys").json()["data"] if one["tenant"] == "default"]
    return {
        "made": made,
        "kept": {"tenant_id": ["default"], "key_id": own},
        "values": {
            "model": [MODEL], "endpoint": [_CHAT], "completion_window": ["24h", "90m"], "purpose": ["batch"],
            "tenant": ["fuzz-a"], "url": [hook], "messages": [body["messages"]], "body": [body],
            "requests": [[{"body": body}], [{"custom_id": "a", "body": body}, {"custom_id": "b", "body": body}]],
        },
        "asked": {
            "/v1/chat/completions": {"messages": body["messages"]}, "/v1/completions": {"prompt": "hello"},
            "/v1/embeddings": {"input": "hello"}, "/v1/responses": {"input": "hello"},
            "/v1/score": {"text_1": "hello", "text_2": "you"}, "/v1/rerank": {"query": "hello", "documents": ["you"]},
        },
    }  # fmt: skip


def _chat(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4}


def _line(body: dict[str, Any]) -> bytes:
    return json.dumps({"custom_id": "a", "method": "POST", "url": _CHAT, "body": body}).encode() + b"\n"
