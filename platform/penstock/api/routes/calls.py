"""Waiting calls: OpenAI's endpoints and the engine's own, answered by a live worker while the client waits.

Bodies and answers pass as bytes; nothing here knows their fields but what routing needs. A client that leaves is
noticed, whether it waits for a whole answer or reads a stream, and its request is aborted in the engine.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager, ExitStack, aclosing
from typing import Any, Final, TypeAlias

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from penstock.api.auth import access_of, known
from penstock.api.http import body, request_turns
from penstock.api.http.errors import DOCUMENTED
from penstock.api.http.request_middleware import CLIENT_LEFT
from penstock.api.http.request_turns import RequestTurn
from penstock.api.platform import Here, Platform
from penstock.domain.accounts.access import Budget
from penstock.domain.accounts.tokens import Usage
from penstock.domain.api_errors import PenstockError
from penstock.domain.inference_endpoints import CALLED, InferenceEndpoint
from penstock.domain.limits.limit import LimitName
from penstock.formats.output import usage_of
from penstock.service.calls.call import CallAnswer
from penstock.service.calls.call_attempt import Broken
from penstock.service.calls.call_metrics import CALL_SECONDS, CALL_TTFT_SECONDS, CALLS
from penstock.service.calls.call_request import CallRequest
from penstock.service.calls.gathered_request import GatheredRequest
from penstock.service.limits import budget
from penstock.service.limits.token_rate import TokenRate

router = APIRouter(tags=["calls"], responses=DOCUMENTED)

AnyCall: TypeAlias = CallRequest | GatheredRequest

_MOST_SESSION_CHARACTERS: Final = 256
_BODY: Final[dict[str, Any]] = {
    "security": [{"HTTPBearer": []}],
    "parameters": [
        {
            "name": "x-session-id",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "Calls with the same value meet on one worker while it has room, where caches are warm; "
            f"its first {_MOST_SESSION_CHARACTERS} characters count.",
        },
        {
            "name": "x-penstock-cache",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "enum": ["on", "off", "refresh"]},
            "description": "Whether a call that has one answer (temperature 0 or a seed, no stream) takes it from the "
            "shared cache and leaves it there; `refresh` asks anew. Left out, as the tenant chose.",
        },
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model"],
                    "properties": {
                        "model": {
                            "type": "string",
                            "description": "`name`, `name@alias` or `name@v3`; a plain name is its alias `stable`. Or "
                            "an ensemble's name.",
                        },
                        "service_tier": {"type": "string", "enum": ["auto", "default", "priority", "flex", "scale"]},
                        "cache": {
                            "type": "object",
                            "description": "The same as the header x-penstock-cache, and how long the answer is kept.",
                            "properties": {
                                "mode": {"type": "string", "enum": ["on", "off", "refresh"]},
                                "ttl_seconds": {"type": "integer", "minimum": 1},
                            },
                            "additionalProperties": False,
                        },
                    },
                    "additionalProperties": True,
                }
            }
        },
    },
}
_STREAMED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The engine's answer; with `stream`, its events as they come.",
        "headers": {
            "x-penstock-worker": {"schema": {"type": "string"}, "description": "Which worker answered."},
            "x-penstock-queue-ms": {"schema": {"type": "integer"}, "description": "Time in line at its gate."},
            "x-penstock-service-tier": {"schema": {"type": "string"}, "description": "The tier that was used."},
            "x-penstock-version": {
                "schema": {"type": "string", "pattern": "^v[1-9][0-9]*$"},
                "description": "Which version of the model answered; not sent where it has none.",
            },
            "x-penstock-ensemble": {
                "schema": {"type": "string"},
                "description": "Of an ensemble: JSON with `ensemble`, `version`, `kind` and `winner`, the member that "
                "answered, and of a vote its `agreement`. What is no stream says it in its `penstock` too, with the "
                "members that were asked, their tokens and times.",
            },
            "x-penstock-cache": {
                "schema": {"type": "string", "enum": ["hit", "miss"]},
                "description": "Whether the answer came from the shared cache, of a call that may be there.",
            },
        },
        "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}},
    }
}


def _route(row: InferenceEndpoint) -> None:
    async def call(request: Request, here: Here) -> Response:
        return await _call(request, here, row.url)

    call.__doc__ = f"{row.words} It passes to the engine as it is, and so does the answer."
    told: dict[str, Any] = {"summary": row.summary, "openapi_extra": _BODY, "responses": _STREAMED}
    router.post(row.url, **told, response_class=Response)(call)


for _row in CALLED.values():
    _route(_row)


async def _call(request: Request, here: Platform, endpoint: str) -> Response:
    tenant = await known(request, _key(request))
    access = access_of(request)
    access.check_budget()
    session = request.headers.get("x-session-id", "")[:_MOST_SESSION_CHARACTERS]
    with ExitStack() as stack:
        stack.enter_context(here.limiter.held(access, LimitName.CALLS))
        stack.enter_context(CALLS.track_inprogress())
        room = stack.enter_context(ExitStack())
        held = room.enter_context(here.room.held(tenant))
        raw = await body.read_into(request, here.settings.max_json_bytes, held)
        cache = request.headers.get("x-penstock-cache")
        id = request.scope["penstock.request_id"]
        ask = await here.calls.read(id, tenant, endpoint, raw, session or None, cache, access.models, access.key)
        here.room.grow(held, len(raw) * ask.at_once)
        stack.enter_context(here.limiter.held(access, LimitName.SEQUENCES, ask.sequences))
        if access.budget is not Budget.NONE and not all(map(here.directory.priced, ask.queues)):
            raise budget.no_price(ask.model)
        tokens = stack.enter_context(
            TokenRate(here.limiter, access, ask.at_once * len(raw) / here.settings.bytes_per_token)
        )
        await tokens.take()
        return Relayed(here, ask, room, tokens, stack.pop_all())


def _key(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


class _Client:
    """Looks whether the client is there; if it leaves, the task that serves it is cancelled."""

    def __init__(self, receive: Receive) -> None:
        serving = asyncio.current_task()
        assert serving is not None, "it is served by a task"
        self._serving = serving
        self._gone = False
        self._looking = asyncio.create_task(self._look(receive))

    async def _look(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._serving.cancel()

    def left(self) -> bool:
        """Whether the cancellation that was just caught is this one."""
        if self._gone:
            self._serving.uncancel()
        return self._gone

    def ignore(self) -> None:
        """Whether it is there makes no difference any more: the end of an answer looks like a client that leaves."""
        self._looking.cancel()


class Relayed(Response):
    """One call's answer, found and passed on while its client is there."""

    def __init__(self, here: Platform, ask: AnyCall, room: ExitStack, tokens: TokenRate, held: ExitStack) -> None:
        super().__init__()
        self._here = here
        self._ask: AnyCall | None = ask
        self._room = room
        self._tokens = tokens
        self._held = held
        self._tier = ask.tier.value
        self._endpoint = ask.endpoint
        self._party = ask.party
        self._version = {"x-penstock-version": ask.party.version} if ask.party and ask.party.version else {}
        self._ensemble_head = dict(ask.head)
        self._spent = Usage()
        self._status = 0
        self._began = time.perf_counter()
        self._first_seconds = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it; a client that leaves ends it."""
        client = _Client(receive)
        turn = request_turns.of(scope)
        turn.leave()  # it waits for an engine now, whose slots are shared by other rules
        try:
            with self._held:
                await self._serve(send, client, turn)
        except asyncio.CancelledError:
            if not client.left():
                raise
            self._status = CLIENT_LEFT
            raise ClientDisconnect from None
        except PenstockError as error:
            self._status = error.status
            more = {**self._version, **self._ensemble_head, "x-penstock-service-tier": self._tier}
            error.headers = {**error.headers, **more}
            raise
        finally:
            client.ignore()
            status = str(CLIENT_LEFT) if self._status == CLIENT_LEFT else f"{self._status // 100}xx"
            seconds = time.perf_counter() - self._began
            CALL_SECONDS.labels(self._endpoint, self._tier, status).observe(seconds)
            if self._party is not None and self._status != CLIENT_LEFT:
                self._here.call_tally.ended(self._party, self._status, self._first_seconds)

    async def _serve(self, send: Send, client: _Client, turn: RequestTurn) -> None:
        async with self._begun() as answer:
            self._room.close()
            await turn.enter()  # so that many answers at once come one after the other, too
            await self._pass_on(answer, send, client)

    def _begun(self) -> AbstractAsyncContextManager[CallAnswer]:
        ask = self._taken()
        if isinstance(ask, GatheredRequest):
            return self._here.gathered_calls.begin(ask, self._spend)
        return self._here.calls.begin(ask)

    def _spend(self, used: Usage) -> None:
        """An answer of one model took this."""
        self._spent += used
        self._tokens.used(self._spent)

    async def _pass_on(self, answer: CallAnswer, send: Send, client: _Client) -> None:
        told = answer.whole or b""
        self._party = answer.party or self._party
        try:
            self._status = answer.status
            await send({"type": "http.response.start", "status": answer.status, "headers": self._head(answer)})
            if answer.status < 400:
                self._first_seconds = time.perf_counter() - self._began
                CALL_TTFT_SECONDS.labels(self._endpoint, self._tier).observe(self._first_seconds)
            if answer.pieces is not None:
                async with aclosing(answer.pieces) as pieces:  # type: ignore[type-var] # a generator
                    async for piece in pieces:
                        told = piece if b'"usage"' in piece else told
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            client.ignore()
            await send({"type": "http.response.body", "body": answer.whole or b"", "more_body": False})
        except Broken:
            client.ignore()  # without the body's end: uvicorn cuts the connection, and so the client knows
        finally:
            if self._party is not None and answer.status < 300 and self._endpoint != "/tokenize":
                used = usage_of(told, reused=answer.reused)
                self._spend(used)
                self._here.call_tally.answered(self._party, used)

    def _taken(self) -> AnyCall:
        """What is asked, for whoever asks it: its body is not kept here while the answer passes."""
        assert self._ask is not None, "it is served once"
        ask, self._ask = self._ask, None
        return ask

    def _head(self, answer: CallAnswer) -> list[tuple[bytes, bytes]]:
        head = [
            (b"content-type", answer.content_type.encode("latin-1")),
            (b"x-penstock-service-tier", self._tier.encode()),
            *((name.encode(), value.encode()) for name, value in self._version.items()),
            *((name.encode(), value.encode("latin-1")) for name, value in answer.headers),
        ]
        if answer.whole is not None:
            head.append((b"content-length", b"%d" % len(answer.whole)))
        elif answer.content_type.startswith("text/event-stream"):
            # Proxies that collect an answer before they pass it on don't, then.
            head += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        return head
