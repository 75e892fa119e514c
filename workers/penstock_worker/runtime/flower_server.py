"""Flower, all of it behind its password: `python -m penstock_worker.runtime.flower_server --address=… --port=…`.

Flower asks for FLOWER_BASIC_AUTH on its pages and its API, but leaves /metrics, /healthcheck, its static files and its
404 open (flower 2.2, `urls.py`). Here the password is asked for before a handler is looked for, so nothing is left out,
also nothing that a later version adds; and every answer has headers that keep it out of frames and other sites' hands.
"""

from __future__ import annotations

import base64
import binascii
import os
import sys
from typing import Any, Final

import flower.command
from flower.app import Flower
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerRequest
from tornado.web import OutputTransform, RequestHandler

from penstock.domain.shared_secret import SharedSecret
from penstock_worker.runtime.celery_app import app

_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    # One of its pages has a script of its own inline; all else comes from itself.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}

_TASKS_COLUMNS: Final = "name,kwargs,state,result,received,runtime,worker,uuid"
"""What its list of tasks shows: kwargs hold model and lane, or the batch; the result is the sentence of what was done.
FLOWER_TASKS_COLUMNS, or `--tasks-columns`, shows others."""


class _Headers(OutputTransform):
    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Add what every answer has."""
        for name, value in _HEADERS.items():
            headers[name] = value
        return status_code, headers, chunk


class _Refused(RequestHandler):
    def check_xsrf_cookie(self) -> None:
        """Nothing is done here that could be forged."""

    def prepare(self) -> None:
        """Ask for the password, whatever was asked for."""
        self.set_status(401)
        self.set_header("www-authenticate", 'Basic realm="flower"')
        self.finish("Access denied")


class GuardedFlower(Flower):  # type: ignore[misc] # Flower has no types
    """Flower that looks for a handler only for who has the password. Raises SystemExit if there is none."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._secret = SharedSecret(tuple(self.options.basic_auth or ()))
        if not self._secret:
            raise SystemExit("flower: set FLOWER_BASIC_AUTH to user:password")
        self.transforms.append(_Headers)

    def find_handler(self, request: HTTPServerRequest, **more: Any) -> HTTPMessageDelegate | None:
        """The handler of a request; without the password one that refuses."""
        if not self._secret.accepts(_given(request)):
            return self.get_handler_delegate(request, _Refused)  # type: ignore[no-any-return] # Flower has no types
        return super().find_handler(request, **more)  # type: ignore[no-any-return]


def _given(request: HTTPServerRequest) -> bytes:
    """The user and password that a request shows; empty if it shows none that can be read."""
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    try:
        return base64.b64decode(shown.strip(), validate=True) if scheme.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        return b""


def main() -> None:
    """Run Flower on the platform's Celery app."""
    if not os.environ.get("FLOWER_BASIC_AUTH"):
        raise SystemExit("flower: set FLOWER_BASIC_AUTH to user:password")
    os.environ.setdefault("FLOWER_TASKS_COLUMNS", _TASKS_COLUMNS)
    flower.command.Flower = GuardedFlower
    app.start(["flower", *sys.argv[1:]])


if __name__ == "__main__":
    main()
