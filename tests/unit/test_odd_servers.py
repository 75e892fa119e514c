"""What answers at the address of a command may be anybody: it is one line, and bounded, and obeyed by no terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli import bounded
from penstock.cli.main import app

ANSWERS: dict[str, tuple[int, str, bytes]] = {
    "a page": (200, "", b"<html>"),
    "a list": (200, "", b"[]"),
    "nothing": (200, "", b"null"),
    "another object": (200, "", b'{"detail": "ok", "data": [{}]}'),
    "too deep": (200, "", b"[" * 100_000),
    "too many digits": (200, "", b'{"data": [{"id": ' + b"9" * 5_000 + b"}]}"),
    "no gzip": (200, "gzip", b"none"),
    "too long": (200, "", b'{"data": ["' + b"x" * 100_000),
    "elsewhere": (302, "", b""),
    "an order to the terminal": (400, "", b'{"error": {"message": "\\u001b]0;title\\u0007 \\u009b31m"}}'),
    "models with orders": (200, "", b'{"data": [{"id": "\\u001b[31m[/red]"}, {"id": "b"}]}'),
}


@pytest.fixture(params=ANSWERS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that gives the same answer to everybody."""
    status, packed, body = ANSWERS[request.param]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            if packed:
                self.send_header("content-encoding", packed)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_odd_answer_is_one_line(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_API_KEY", "sk-test")
    monkeypatch.setenv("PENSTOCK_URL", url)
    monkeypatch.setattr(bounded, "MOST_BYTES", 50_000)
    Path("t.csv").write_text("text\na\n")
    Path("r.jsonl").write_text('{"custom_id": "a", "url": "/v1/embeddings", "body": {"input": "a"}}\n')
    for command in (
        "batches list",
        "batches show batch_1",
        f"run -i r.jsonl -o o.jsonl --server {url}",
        f"run -i r.jsonl -o o.jsonl --engine-url {url}",
        f"map t.csv -o o.csv --prompt {{{{text}}}} --server {url}",
    ):
        done = CliRunner().invoke(app, command.split())
        assert (done.exit_code, done.output.count("\n")) == (1, 1), (command, done.output, done.exception)
        assert done.output.startswith("penstock: ")
        assert not any(control in done.output for control in "\x1b\x07\x9b")
