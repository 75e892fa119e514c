"""A Hugging Face hub of one model, as far as huggingface_hub asks for it; it may hold a file back in its middle."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ID = "org/model"
COMMIT = "a" * 40


@dataclass
class FakeHub:
    """What it has, and how it answers."""

    files: dict[str, bytes]
    status: int = 200
    """Of every answer about the model; 200 is the truth."""
    token: str | None = None
    """Who shows no such token hears 401, as of a model that is not there."""
    sizes: dict[str, int] = field(default_factory=dict)
    """What it says instead of a file's real size."""
    held: str = ""
    """Of this file, the second half waits for `go`."""
    half_sent: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = urlsplit(request.path).path
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            self._say(request, 401, b"{}", body)
        elif path.startswith(f"/api/models/{ID}/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            self._say(request, 200, json.dumps(tree).encode(), body)
        elif path.startswith(f"/api/models/{ID}"):
            siblings = [{"rfilename": n, "size": self.sizes.get(n, len(data))} for n, data in self.files.items()]
            about = {"id": ID, "modelId": ID, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
            self._say(request, self.status, json.dumps(about if self.status == 200 else {}).encode(), body)
        elif path.startswith(f"/{ID}/resolve/") and (name := path.split("/", 5)[5]) in self.files:
            self._say(request, 200, self.files[name], body, name)
        else:
            self._say(request, 404, b"{}", body)

    def _say(self, request: BaseHTTPRequestHandler, status: int, data: bytes, body: bool, name: str = "") -> None:
        request.send_response(status)
        request.send_header("content-length", str(len(data)))
        if name:
            request.send_header("x-repo-commit", COMMIT)
            request.send_header("etag", f'"{hashlib.sha1(data).hexdigest()}"')
        request.end_headers()
        if not body:
            return
        half = len(data) // 2 if name and name == self.held else len(data)
        request.wfile.write(data[:half])
        if half < len(data):
            request.wfile.flush()
            self.half_sent.set()
            self.go.wait(60)
            request.wfile.write(data[half:])


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """The hub on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.answer(self, body=True)

        def do_HEAD(self) -> None:
            hub.answer(self, body=False)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.go.set()
        server.shutdown()
        thread.join()
        server.server_close()
