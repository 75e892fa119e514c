"""Engines that somebody else started, on ports of this machine, and what leads to them."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from penstock.stack.ports import free_port
from penstock_worker.engine import kind
from penstock_worker.engine.launch_spec import Launch


@dataclass
class Elsewhere:
    """An engine there: its address, its process, and its first word."""

    url: str
    process: subprocess.Popen[str]
    said: str


@contextlib.contextmanager
def elsewhere(*arguments: str, port: int | None = None, model: str = "theirs") -> Iterator[Elsewhere]:
    """An echo engine on a port."""
    port = port or free_port()
    command = [sys.executable, "-m", "penstock_worker.engine.echo.echo_server", "--port", str(port)]
    command += ["--model", model, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        said = process.stdout.readline()
        assert "it is no model" in said
        yield Elsewhere(f"http://127.0.0.1:{port}", process, said)
    finally:
        process.kill()
        process.communicate()


def far_launch(folder: Path, url: str, *arguments: str, engine: str = "remote", **environ: str) -> Launch:
    """What leads to an engine there that has the model `theirs`."""
    return kind.launch(
        engine, model="theirs", source=url, socket=folder / "e.sock", arguments=arguments,
        environ=dict(os.environ) | environ, python=sys.executable,
    )  # fmt: skip


@dataclass
class Answering:
    """What a plain server says: to each path a status, a content type and a body; 404 to all others."""

    pages: dict[str, tuple[int, str, bytes]]
    key: str | None = None
    """Who does not show it hears 401."""


@contextlib.contextmanager
def server(said: Answering, certificate: Path | None = None) -> Iterator[str]:
    """A plain HTTP server that is no engine, with a certificate (and its key, in one file) one that speaks TLS."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, kind, body = said.pages.get(self.path, (404, "text/plain", b""))
            if said.key and self.headers.get("authorization") != f"Bearer {said.key}":
                status, kind, body = 401, "application/json", b'{"error":{"message":"no key"}}'
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        made.socket = context.wrap_socket(made.socket, server_side=True)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://localhost:{made.server_address[1]}"
    finally:
        made.shutdown()
        thread.join()
        made.server_close()
