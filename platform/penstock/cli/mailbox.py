"""A mailbox: the demo's own receiver of webhooks, on a free port of loopback, which keeps what comes and says 204."""

from __future__ import annotations

import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

_MOST_BYTES: Final = 64 * 1024


class Mailbox:
    """From `with` to its end."""

    def __init__(self) -> None:
        self._letters: queue.Queue[tuple[bytes, dict[str, str]]] = queue.Queue()
        letters = self._letters

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = min(int(self.headers.get("content-length", 0)), _MOST_BYTES)
                letters.put((self.rfile.read(length), dict(self.headers.items())))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing: the demo says itself what came."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhook"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="mailbox", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def next(self, seconds: float) -> tuple[bytes, dict[str, str]] | None:
        """Body and headers of the next one that comes; None if none comes in time."""
        try:
            return self._letters.get(timeout=seconds)
        except queue.Empty:
            return None
