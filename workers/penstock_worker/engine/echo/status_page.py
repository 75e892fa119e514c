"""What the echo engine says of itself: health, models, version and metrics, in vLLM's words where vLLM has some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from penstock_worker.engine.echo.body import Body, encode
from penstock_worker.engine.echo.counters import Counters

OWNED_BY: Final = "penstock-echo (simulated)"


def page(counters: Counters, path: str) -> web.Response:
    """The answer to a GET."""
    if path == "/health":
        return web.Response(status=200 if counters.core_lives else 503)
    if path == "/v1/models":
        common = {"object": "model", "created": counters.voice.born, "owned_by": OWNED_BY}
        cards = [
            common | {"id": name, "parent": None if name == counters.model else counters.model}
            for name in counters.names
        ]
        return reply({"object": "list", "data": cards})
    if path == "/version":
        return reply({"version": OWNED_BY})
    if path == "/metrics":
        return web.Response(text=_metrics(counters), content_type="text/plain")
    return not_found()


def not_found() -> web.Response:
    """There is nothing here."""
    return reply({"error": {"message": "Not Found", "type": "NotFoundError", "param": None, "code": 404}}, 404)


def reply(body: Body, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=encode(body), status=status, content_type="application/json", headers=headers)


def _metrics(counters: Counters) -> str:
    label = f'{{engine="0",model_name="{counters.model}"}}'
    rows = (
        ("vllm:num_requests_running", "gauge", "", counters.running),
        ("vllm:num_requests_waiting", "gauge", "", counters.waiting),
        ("vllm:prompt_tokens", "counter", "_total", counters.voice.prompt_tokens),
        ("vllm:generation_tokens", "counter", "_total", counters.voice.generation_tokens),
        ("vllm:request_success", "counter", "_total", counters.answered),
        ("vllm:kv_cache_usage_perc", "gauge", "", counters.kv_usage),
        ("vllm:num_preemptions", "counter", "_total", counters.preemptions),
        ("echo:requests_aborted", "counter", "_total", counters.aborted),
    )
    return "".join(
        f"# HELP {name} Simulated by the echo engine.\n# TYPE {name} {kind}\n{name}{suffix}{label} {value}\n"
        for name, kind, suffix, value in rows
    )
