"""The HTTP application: the API, and below `/console` the console, which asks it; one middleware is around both."""

from __future__ import annotations

from functools import cache

from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.api import auth
from penstock.api.app import create_api
from penstock.api.http.request_middleware import RequestMiddleware
from penstock.api.http.request_turns import RequestTurns
from penstock.api.platform import Platform
from penstock.console import session
from penstock.console.api_client import ApiClient
from penstock.console.app import create_console
from penstock.console.context import ConsoleContext
from penstock.console.live_topics import LiveTopics
from penstock.console.navigation import is_below
from penstock.console.session_watch import SessionWatch
from penstock.settings import Settings


def create_app(settings: Settings) -> ASGIApp:
    """Make the application; its connections open when it starts and close when it stops."""
    api = create_api(settings)

    asked = ApiClient(api, auth.GRANTED)

    @cache
    def context() -> ConsoleContext:
        here: Platform = api.state.platform
        watch = SessionWatch(here.db, here.settings)
        return ConsoleContext(
            here.db, here.settings, here.key_cache, here.limiter, here.key_uses, asked, LiveTopics(), watch
        )

    console = create_console(context) if settings.console else None

    async def rooms(scope: Scope, receive: Receive, send: Send) -> None:
        room = console if console is not None and is_below(scope) else api
        await room(scope, receive, send)

    def whose(scope: Scope) -> str:
        return auth.whose(scope) or (session.whose(scope) if console else "")

    def told(scope: Scope) -> dict[str, str]:
        return auth.told(scope) if scope["app"] is api else {}

    served = RequestMiddleware(rooms, turns=RequestTurns(settings.api_turns), whose=whose, told=told)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = api
        await (api if scope["type"] == "lifespan" else served)(scope, receive, send)

    return app
