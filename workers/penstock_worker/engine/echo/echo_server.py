"""The echo engine: a simulated engine for tests and for measuring everything but the engine.

It is no model. It says so in its log and in `owned_by` of its model listing. It speaks the OpenAI HTTP API on a unix
socket as vLLM does, answers each prompt with that prompt, and counts four bytes as a token. The answer begins with
the whole last user message, so that a test can tell which line it belongs to; `[[tokens N]]` or `--output-tokens N`
make it longer and set the count. `max_tokens` cuts the count (finish_reason `length`), never the text. What else it
can be made to do is in `markers.py`.

    python -m penstock_worker.engine.echo.echo_server (--uds SOCK | --port 9000) --model NAME
                                          [--latency-ms 20] [--jitter 0.5] [--seed 7] [--itl-ms 5]
                                          [--output-tokens 40] [--max-num-seqs 128]
                                          [--journal PATH] [--lora-modules NAME=PATH …] [--kv-usage 0.5]
                                          [--preemptions 3] [--plays sglang] [--lacks priority,abort]
                                          [--enable-lora] [--max-loras 2] [--max-lora-rank 16]
                                          [--most-at-once 4] [--requests-per-second 20]
                                          [--enable-sleep-mode] [--sleep-fault dies]

A stream's first token comes after the latency, each further one `--itl-ms` later; where the request says how many
tokens it wants, each is an event of its own. A client that goes away is no longer served, and counted as aborted.

With a journal, each request that asks for an answer appends one line to that file when it arrives, before it waits or
kills the engine: unix seconds, pid and the first 80 characters of the last user message (prompt, input; of a list of
texts a line each), with tabs between. So a test counts how often each line was asked, whatever died meanwhile; engines
may share the file.

At most `--max-num-seqs` requests run, the others wait, as in vLLM. The latency of a request depends on its body and
the seed only. `--plays NAME` gives it the pages, errors and metrics of another engine profile, which it says in its log
and in `owned_by`; `--lacks` takes abilities away (domain/engines/profile.py); the last two make it refuse as hosted
engines do (`provider_limits.py`). With `--enable-lora` it plays adapters (`adapters.py`), with `--enable-sleep-mode`
that it sleeps (`played_sleep.py`).

Ready in about a second; 4,000 requests/s on one of two shared cores, with its client on the other (2,200 without
uvloop).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import time
import zlib
from collections.abc import Iterable
from typing import Any, Final

import uvloop
from aiohttp import web
from cachetools import FIFOCache

from penstock.domain.engines.profile import EngineAbort, EngineLack
from penstock_worker.engine.echo import markers, status_page, stream
from penstock_worker.engine.echo.adapters import PlayedAdapters
from penstock_worker.engine.echo.answers import ANSWERS, Answerer, EchoRefusal, Voice
from penstock_worker.engine.echo.body import Body, asked, decode, encode
from penstock_worker.engine.echo.counters import Counters
from penstock_worker.engine.echo.played_sleep import FAULTS, PlayedSleep, cut_short
from penstock_worker.engine.echo.provider_limits import ProviderLimits
from penstock_worker.engine.echo.shapes import DEFAULT_SEQS, EchoShape

_MOST_REMEMBERED: Final = 100_000
_MOST_BODY_BYTES: Final = 64 * 1024 * 1024
_CORE_LAST_SECONDS: Final = 0.5
_CORE_DIED: Final = {
    "error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": None, "code": 500}
}


class Echo:
    """The engine: what runs, what was seen before, and the counters that its pages show."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.latency_seconds: float = options.latency_ms / 1000
        self.jitter: float = options.jitter
        self.seed: int = options.seed
        self.itl_seconds: float = options.itl_ms / 1000
        self.slots = asyncio.Semaphore(options.max_num_seqs)
        self.asked: set[asyncio.Task[Any]] = set()
        self.voice = Voice(options.model, options.output_tokens, int(time.time()))
        self.counters = Counters(
            self.voice,
            [options.model, *(module.partition("=")[0] for module in options.lora_modules)],
            options.kv_usage,
            options.preemptions,
        )
        self.shape = EchoShape(options.plays, options.lacks)
        room = options.max_loras if options.enable_lora else 0
        self.adapters = PlayedAdapters(room, self.shape.profile.adapters)
        sleep = self.shape.profile.sleep if options.enable_sleep_mode else None
        self.sleep = PlayedSleep(sleep, self.counters, options.sleep_fault)
        self.limits = ProviderLimits(options.most_at_once, options.requests_per_second)
        self.takes_ids = not self.shape.lacks(EngineLack.REQUEST_IDS)
        self.notices = self.shape.profile.abort is EngineAbort.DISCONNECT
        """Who leaves."""
        self.named: dict[str, asyncio.Task[Any]] = {}
        """Requests by the ids that they are aborted by."""
        self.refused_before: FIFOCache[bytes, int] = FIFOCache(_MOST_REMEMBERED)
        self.journal: int | None = None
        if options.journal:
            self.journal = os.open(options.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request."""
        profile = self.shape.profile
        if self.sleep.takes(request.path):
            return await self.sleep.change(request)
        if request.method == "GET":
            return status_page.page(self.counters, request.path, self.shape)
        if profile.abort is EngineAbort.REQUEST_ID and request.path == profile.abort_path:
            return self._abort(decode(await request.read()))
        if self.adapters.takes(request.path):
            return self.adapters.change(request.path, decode(await request.read()))
        answer = ANSWERS.get(request.path)
        if answer is None or (request.path == "/tokenize" and self.shape.lacks(EngineLack.TOKENIZER)):
            return status_page.not_found(self.shape)
        raw = await request.read()
        if self.notices:
            return await self._answer(request, raw, answer)
        # Whoever leaves is not noticed: the work goes on.
        return await asyncio.shield(asyncio.ensure_future(self._answer(request, raw, answer)))

    def _abort(self, body: Body) -> web.Response:
        if task := self.named.get(str(body.get(self.shape.profile.id_field))):
            task.cancel()
        return status_page.reply({})

    async def _answer(self, request: web.BaseRequest, raw: bytes, answer: Answerer) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None, "a handler runs in a task"
        self.asked.add(task)
        try:
            return await self._run(request, raw, answer)
        except EchoRefusal as refusal:
            return status_page.reply(self.shape.error(refusal.body), refusal.status, refusal.headers)
        except asyncio.CancelledError:
            if self.counters.core_lives:
                self.counters.aborted += 1
                raise
            task.uncancel()
            return status_page.reply(self.shape.error(_CORE_DIED), 500)
        finally:
            self.asked.discard(task)

    async def _run(self, request: web.BaseRequest, raw: bytes, answer: Answerer) -> web.StreamResponse:
        script = markers.read(raw)
        body = decode(raw)
        if self.journal is not None:
            # One write to a file opened for appending: lines of several engines never mix.
            noted = "".join(f"{time.time():.6f}\t{os.getpid()}\t{text}\n" for text in asked(body))
            os.write(self.journal, noted.encode(errors="replace"))
        asked_model = body.get("model", self.voice.model)
        if asked_model not in self.counters.names and asked_model not in self.adapters.names:
            message = f"The model `{body['model']}` does not exist."
            raise EchoRefusal(404, message, "NotFoundError", "model")
        if field := self.shape.unknown_field(body):
            raise EchoRefusal(400, f"Unrecognized request argument supplied: {field}", param=field)
        if (headers := self.limits.refuses(self.counters.running + self.counters.waiting)) is not None:
            raise EchoRefusal(429, "Too many requests.", "requests", headers=headers)
        if not self.notices:
            self._name(body)
        await self.sleep.awake()
        async with self._slot():
            whole = await self.sleep.through(self._obey(script, raw, request))
            if self._refuses(script, raw):
                headers = {"retry-after": script.retry_after} if script.retry_after else None
                raise EchoRefusal(script.status, f"The script says {script.status}.", "ScriptedError", headers=headers)
            own = f"{zlib.crc32(raw):08x}{self.counters.answered:08x}"
            identity = (request.headers.get("x-request-id") if self.takes_ids else None) or own
            said = answer(self.voice, body, script, identity)
            self.adapters.speak(asked_model, said)
            if not whole:
                cut_short(said)
            self.counters.answered += 1
            if body.get("stream") is True and request.path in stream.KINDS:
                return await self._stream(request, said, script, body)
            written = encode(said)
        return web.Response(
            body=written.replace(b"[[surrogate]]", rb"\ud800") if script.surrogate else written,
            content_type="application/json",
            headers=None if self.takes_ids else {"x-request-id": identity},
        )

    def _name(self, body: Body) -> None:
        """Let it be known by its id until its end, to whoever aborts by that."""
        id, task = body.get(self.shape.profile.id_field), asyncio.current_task()
        if id is not None and task is not None:
            self.named[str(id)] = task
            task.add_done_callback(lambda _: self.named.pop(str(id), None))

    @contextlib.asynccontextmanager
    async def _slot(self) -> Any:
        self.counters.waiting += 1
        try:
            await self.slots.acquire()
        finally:
            self.counters.waiting -= 1
        self.counters.running += 1
        try:
            yield
        finally:
            self.counters.running -= 1
            self.slots.release()

    async def _obey(self, script: markers.Script, raw: bytes, request: web.BaseRequest) -> None:
        if script.die:
            await self._suffer("die", request)
        if script.core_dies:
            await self._suffer("core-dies", request)
        if script.breaks:
            await self._suffer("break", request)
        if script.hang:
            await self._suffer("stall", request)
        seconds = script.sleep_seconds
        if self.latency_seconds:
            # Between -1 and 1, the same for the same body and seed.
            swing = zlib.crc32(raw, self.seed) / 0x7FFFFFFF - 1.0 if self.jitter else 0.0
            seconds += self.latency_seconds * (1.0 + self.jitter * swing)
        if seconds > 0:
            await asyncio.sleep(seconds)

    def _refuses(self, script: markers.Script, raw: bytes) -> bool:
        if not script.status:
            return False
        if script.times is None:
            return True
        came = self.refused_before.get(raw, 0)
        if came >= script.times:
            return False
        self.refused_before[raw] = came + 1
        return True

    async def _suffer(self, what: str, request: web.BaseRequest) -> None:
        """A fault that the script asks for; it does not return."""
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "break" and request.transport:
            request.transport.abort()
        elif what == "core-dies":
            # What vLLM does: everybody in flight hears of it, and the server ends itself a little later.
            self.counters.core_lives = False
            for task in self.asked:
                task.cancel()
            asyncio.get_running_loop().call_later(_CORE_LAST_SECONDS, os.kill, os.getpid(), signal.SIGKILL)
        await asyncio.Event().wait()

    async def _stream(
        self, request: web.BaseRequest, said: Body, script: markers.Script, body: Body
    ) -> web.StreamResponse:
        kind = stream.KINDS[request.path]
        tokens = None
        if script.output_tokens or self.voice.output_tokens:
            usage = said["usage"]
            tokens = (
                usage["output_tokens"] if kind == "response" else usage["completion_tokens"] // len(said["choices"])
            )
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        try:
            await self._say(request, response, stream.events(said, kind, tokens, with_usage), script)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.counters.core_lives or task is None:
                raise
            task.uncancel()
            await response.write(b"data: " + encode(_CORE_DIED) + b"\n\n")
        if kind != "response":
            await self._write(response, b"data: [DONE]\n\n")
        with contextlib.nullcontext() if self.notices else contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _say(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        events: Iterable[stream.Event],
        script: markers.Script,
    ) -> None:
        """Write a stream's events, each token in its time, until the script stops it."""
        tokens = 0
        for place, (name, event, token) in enumerate(events):
            if script.then and place == script.after:
                await self._suffer(script.then, request)
            if token:
                tokens += 1
                if tokens > 1 and self.itl_seconds:
                    await asyncio.sleep(self.itl_seconds)
            await self._write(
                response, (f"event: {name}\n".encode() if name else b"") + b"data: " + encode(event) + b"\n\n"
            )

    async def _write(self, response: web.StreamResponse, piece: bytes) -> None:
        try:
            await response.write(piece)
        except ConnectionError:  # an engine that does not notice that its reader left goes on
            if self.notices:
                raise


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MOST_BODY_BYTES)


async def serve(options: argparse.Namespace) -> None:
    """Listen until SIGTERM."""
    end = asyncio.Event()
    for number_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number_, end.set)
    # The low-level server: no router and no middleware in the way. A client that goes away cancels its handler.
    echo = Echo(options)
    server = web.Server(
        echo.handle,
        request_factory=_request,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=600.0,
    )
    runner = web.ServerRunner(server)
    await runner.setup()
    if options.uds:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(options.uds)
        await web.UnixSite(runner, options.uds, backlog=4096).start()
    else:
        await web.TCPSite(runner, "127.0.0.1", options.port, backlog=4096).start()
    where = options.uds or f"port {options.port} of this machine"
    print(f"{echo.shape.owned_by}: pretends to be {options.model!r} on {where}; it is no model.", flush=True)
    await end.wait()
    await runner.cleanup()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        prog="penstock_worker.engine.echo.echo_server", description="A simulated engine; no model."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--uds")
    where.add_argument("--port", type=int)
    parser.add_argument("--model", required=True)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--jitter", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--itl-ms", type=float, default=0.0)
    parser.add_argument("--output-tokens", type=int)
    parser.add_argument("--kv-usage", type=float, default=0.0)
    parser.add_argument("--preemptions", type=int, default=0)
    parser.add_argument("--lora-modules", nargs="+", default=[])
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--max-loras", type=int, default=1)
    parser.add_argument("--max-lora-rank", type=int)
    parser.add_argument("--enable-sleep-mode", action="store_true")
    parser.add_argument("--sleep-fault", choices=FAULTS)
    parser.add_argument("--max-num-seqs", type=int, default=DEFAULT_SEQS)
    parser.add_argument("--journal")
    parser.add_argument("--plays")
    parser.add_argument("--lacks", default="")
    parser.add_argument("--most-at-once", type=int, default=0)
    parser.add_argument("--requests-per-second", type=float, default=0.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
