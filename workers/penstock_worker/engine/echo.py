"""The echo engine: a simulated engine for tests and for measuring everything but the engine.

It is no model. It says so in its log and in `owned_by` of its model listing. It speaks the OpenAI HTTP API on a unix
socket as vLLM does, answers each prompt with that prompt, and counts four bytes as a token. The answer begins with
the whole last user message, so that a test can tell which line it belongs to; `[[tokens N]]` or `--output-tokens N`
make it longer and set the count. `max_tokens` cuts the count (finish_reason `length`), never the text. What else it
can be made to do is in `echo_script.py`.

    python -m penstock_worker.engine.echo --uds SOCK --model NAME [--latency-ms 20] [--jitter 0.5] [--seed 7]
                                          [--output-tokens 40] [--max-num-seqs 128] [--journal PATH]

With a journal, each request that asks for an answer appends one line to that file when it arrives, before it waits or
kills the engine: unix seconds, pid and the first 80 characters of the last user message (prompt, input), with tabs
between. So a test counts how often each line was asked, whatever died meanwhile; engines may share the file.

At most `--max-num-seqs` requests run, the others wait, as in vLLM. The latency of a request depends on its body and
the seed only. Ready in about a second; 4,000 requests/s on one of two shared cores, with its client on the other
(2,200 without uvloop).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from aiohttp import web

from penstock_worker.engine import echo_script
from penstock_worker.engine.echo_answers import ANSWERS, STREAMS, Answerer, Body, Refusal, Voice, chunks
from penstock_worker.engine.launch import Launch, check_socket, engine_environment, number, with_room, without

OWNED_BY: Final = "penstock-echo (simulated)"
DEFAULT_SEQS: Final = 128
_MOST_REMEMBERED: Final = 100_000
_NOTED_CHARACTERS: Final = 80


def launch(
    *,
    model: str,
    source: str,
    socket: Path,
    arguments: Sequence[str] = (),
    environ: Mapping[str, str],
    python: str,
) -> Launch:
    """Describe how to start the echo engine; it has no weights, so `source` is not used.

    It runs in the worker's interpreter whatever `python` says: that one needs a vLLM, not Penstock.
    """
    check_socket(socket)
    slots = number(arguments, "--max-num-seqs") or DEFAULT_SEQS
    command = [sys.executable, "-m", "penstock_worker.engine.echo", "--uds", str(socket), "--model", model]
    command += ["--max-num-seqs", str(with_room(slots)), *without(arguments, "--max-num-seqs")]
    environment = engine_environment(environ) | {"PYTHONUNBUFFERED": "1"}
    return Launch("echo", model, tuple(command), environment, socket, slots, with_room(slots), 60.0)


class Echo:
    """The engine's state: what runs, what was counted, what was seen before."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.model: str = options.model
        self.latency_seconds: float = options.latency_ms / 1000
        self.jitter: float = options.jitter
        self.seed: int = options.seed
        self.slots = asyncio.Semaphore(options.max_num_seqs)
        self.running = 0
        self.waiting = 0
        self.answered = 0
        self.voice = Voice(options.model, options.output_tokens, int(time.time()))
        self.refused_before: OrderedDict[bytes, int] = OrderedDict()
        self.journal: int | None = None
        if options.journal:
            self.journal = os.open(options.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request."""
        path = request.path
        if request.method == "GET":
            return self._tell(path)
        answer = ANSWERS.get(path)
        if answer is None:
            return _json({"error": {"message": "Not Found", "type": "NotFoundError", "param": None, "code": 404}}, 404)
        try:
            return await self._run(request, await request.read(), answer)
        except Refusal as refusal:
            return _json(refusal.body, refusal.status)

    def _tell(self, path: str) -> web.Response:
        if path == "/health":
            return web.Response()
        if path == "/v1/models":
            card = {"id": self.model, "object": "model", "created": self.voice.born, "owned_by": OWNED_BY}
            return _json({"object": "list", "data": [card]})
        if path == "/version":
            return _json({"version": OWNED_BY})
        if path == "/metrics":
            return web.Response(text=self._metrics(), content_type="text/plain")
        return _json({"error": {"message": "Not Found", "type": "NotFoundError", "param": None, "code": 404}}, 404)

    async def _run(self, request: web.BaseRequest, raw: bytes, answer: Answerer) -> web.StreamResponse:
        script = echo_script.read(raw)
        body = _decode(raw)
        if self.journal is not None:
            # One write to a file opened for appending: lines of several engines never mix.
            os.write(self.journal, f"{time.time():.6f}\t{os.getpid()}\t{_asked(body)}\n".encode(errors="replace"))
        if body.get("model", self.model) != self.model:
            message = f"The model `{body['model']}` does not exist."
            raise Refusal(404, message, "NotFoundError", "model")
        async with self._slot():
            await self._obey(script, raw)
            if self._refuses(script, raw):
                headers = {"retry-after": script.retry_after} if script.retry_after else None
                refusal = Refusal(script.status, f"The script says {script.status}.", "ScriptedError")
                return _json(refusal.body, script.status, headers)
            identity = request.headers.get("x-request-id") or f"{zlib.crc32(raw):08x}{self.answered:08x}"
            said = answer(self.voice, body, script, identity)
            self.answered += 1
            if body.get("stream") is True and request.path in STREAMS:
                return await self._stream(request, said, STREAMS[request.path], body)
            whole = _encode(said)
        return web.Response(
            body=whole.replace(b"[[surrogate]]", rb"\ud800") if script.surrogate else whole,
            content_type="application/json",
        )

    @contextlib.asynccontextmanager
    async def _slot(self) -> Any:
        self.waiting += 1
        try:
            await self.slots.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self.slots.release()

    async def _obey(self, script: echo_script.Script, raw: bytes) -> None:
        if script.die:
            os.kill(os.getpid(), signal.SIGKILL)
        if script.hang:
            await asyncio.Event().wait()
        seconds = script.sleep_seconds
        if self.latency_seconds:
            # Between -1 and 1, the same for the same body and seed.
            swing = zlib.crc32(raw, self.seed) / 0x7FFFFFFF - 1.0 if self.jitter else 0.0
            seconds += self.latency_seconds * (1.0 + self.jitter * swing)
        if seconds > 0:
            await asyncio.sleep(seconds)

    def _refuses(self, script: echo_script.Script, raw: bytes) -> bool:
        if not script.status:
            return False
        if script.times is None:
            return True
        came = self.refused_before.get(raw, 0)
        if came >= script.times:
            return False
        self.refused_before[raw] = came + 1
        if len(self.refused_before) > _MOST_REMEMBERED:
            self.refused_before.popitem(last=False)
        return True

    async def _stream(self, request: web.BaseRequest, said: Body, kind: str, body: Body) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for chunk in chunks(said, kind, bool((body.get("stream_options") or {}).get("include_usage"))):
            await response.write(b"data: " + _encode(chunk) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _metrics(self) -> str:
        label = f'{{engine="0",model_name="{self.model}"}}'
        rows = (
            ("vllm:num_requests_running", "gauge", "", self.running),
            ("vllm:num_requests_waiting", "gauge", "", self.waiting),
            ("vllm:prompt_tokens", "counter", "_total", self.voice.prompt_tokens),
            ("vllm:generation_tokens", "counter", "_total", self.voice.generation_tokens),
            ("vllm:request_success", "counter", "_total", self.answered),
        )
        return "".join(
            f"# HELP {name} Simulated by the echo engine.\n# TYPE {name} {kind}\n{name}{suffix}{label} {value}\n"
            for name, kind, suffix, value in rows
        )


def _asked(body: Body) -> str:
    """The beginning of what is asked, on one line."""
    messages = body.get("messages")
    users = (
        [m for m in messages if isinstance(m, dict) and m.get("role") == "user"] if isinstance(messages, list) else []
    )
    text = users[-1].get("content") if users else body.get("prompt", body.get("input", ""))
    return " ".join(str(text)[:_NOTED_CHARACTERS].splitlines()).replace("\t", " ")


def _decode(raw: bytes) -> Body:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            body = json.loads(raw)  # Slower, but it takes lone surrogates.
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"The body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refusal(400, "The body must be a JSON object.")
    return body


def _encode(body: Body) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return json.dumps(body).encode()


def _json(body: Body, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=_encode(body), status=status, content_type="application/json", headers=headers)


async def serve(options: argparse.Namespace) -> None:
    """Listen until SIGTERM."""
    end = asyncio.Event()
    for number_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number_, end.set)
    # The low-level server: no router and no middleware in the way. A client that goes away cancels its handler.
    server = web.Server(Echo(options).handle, access_log=None, handler_cancellation=True, keepalive_timeout=600.0)
    runner = web.ServerRunner(server)
    await runner.setup()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(options.uds)
    await web.UnixSite(runner, options.uds, backlog=4096).start()
    print(f"{OWNED_BY}: pretends to be {options.model!r} on {options.uds}; it is no model.", flush=True)
    await end.wait()
    await runner.cleanup()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="penstock_worker.engine.echo", description="A simulated engine; no model.")
    parser.add_argument("--uds", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--jitter", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-tokens", type=int)
    parser.add_argument("--max-num-seqs", type=int, default=DEFAULT_SEQS)
    parser.add_argument("--journal")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
