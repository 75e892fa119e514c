"""The session of a browser: a random token in a cookie, which stands for the key that somebody logged in with.

The cookie is read by the console only. Each request looks the session up, so a key that is revoked ends its sessions
at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from cachetools import LRUCache
from fastapi import Depends, Request, Response
from starlette.types import Scope

from penstock.console.api_client import GrantedApi
from penstock.console.context import ConsoleContext, Context
from penstock.console.navigation import BASE
from penstock.console.scope import ACCESS
from penstock.domain.accounts.access import Access, Role
from penstock.domain.api_errors import Forbidden, Unauthorized
from penstock.domain.limits.limit import LimitName
from penstock.service.admin import sessions

COOKIE: Final = "penstock_session"
_remembered: LRUCache[str, str] = LRUCache(10_000)
"""Whose a session was when it was last looked up: for its turn, not for what it may."""


class NotLoggedIn(Exception):
    """There is no session: the login page comes first."""


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page, and the API as they may ask it."""

    access: Access
    api: GrantedApi
    token: str = field(repr=False)

    @property
    def operates(self) -> bool:
        """Whether they see what is over all tenants."""
        return self.access.role is Role.OPERATOR

    @property
    def writes(self) -> bool:
        """Whether they may change anything."""
        return self.access.role is not Role.VIEWER


def whose(scope: Scope) -> str:
    """The tenant whose session a request brings, as far as this process remembers it; empty if it does not."""
    return _remembered.get(_token_of(scope), "")


def give(request: Request, response: Response, token: str) -> None:
    """Let the browser keep the token until it is closed, and show it to the console alone."""
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, token, path=_path(request), secure=secure, httponly=True, samesite="lax")


def take(request: Request, response: Response) -> None:
    """Let the browser forget the token."""
    response.delete_cookie(COOKIE, path=_path(request))


def token_of(request: Request) -> str:
    """The token that a request brings, or nothing."""
    return _token_of(request.scope)


def visitor_of(request: Request) -> Visitor | None:
    """Who asks, where that was found out already: an error has its page, too."""
    return getattr(request.state, "visitor", None)


async def recognized(request: Request, context: ConsoleContext) -> Visitor:
    """Whoever has a session that is valid at this moment, looked up once a request. Raises NotLoggedIn, Forbidden."""
    return visitor_of(request) or await _seen(request, context, asks=True)


async def _visitor(request: Request, context: Context) -> Visitor:
    return await recognized(request, context)


async def _onlooker(request: Request, context: Context) -> Visitor:
    return await _seen(request, context, asks=False)


async def _seen(request: Request, context: Context, *, asks: bool) -> Visitor:
    token = token_of(request)
    try:
        access = await context.db.autocommit(sessions.access_of, token, context.settings, asks=asks)
    except Unauthorized:
        _remembered.pop(token, None)
        raise NotLoggedIn from None
    _remembered[token] = access.tenant
    request.scope[ACCESS] = access
    await context.limiter.take(access, LimitName.REQUESTS_PER_MINUTE)
    context.key_uses.note(access.key)
    visitor = Visitor(access, context.api.of(request.scope, request.receive, access), token)
    request.state.visitor = visitor
    if request.method != "GET" and not visitor.writes:  # before a word of the form is read
        raise Forbidden("This key may only read.", code="read_only_key")
    return visitor


async def _operator(visitor: Annotated[Visitor, Depends(_visitor)]) -> Visitor:
    if not visitor.operates:
        raise Forbidden("This page is for operators' keys only.", code="operator_only")
    return visitor


LoggedIn = Annotated[Visitor, Depends(_visitor)]
"""Whoever has a session that is valid at this moment."""

LookingOn = Annotated[Visitor, Depends(_onlooker)]
"""The same, of a page that goes on by itself: that asks nothing, so the session may become idle meanwhile."""

LoggedInOperator = Annotated[Visitor, Depends(_operator)]
"""The same, of an operator's key."""


def _path(request: Request) -> str:
    return str(request.scope.get("root_path", "")) + BASE


def _token_of(scope: Scope) -> str:
    given = b"; ".join(value for name, value in scope["headers"] if name == b"cookie").decode("latin-1")
    # Pair by pair: a cookie of another application on this host may be written in any way.
    pairs = (pair.partition("=") for pair in given.split(";"))
    return next((value.strip() for name, _, value in pairs if name.strip() == COOKIE), "")
