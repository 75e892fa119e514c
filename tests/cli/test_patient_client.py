"""Whoever waits goes on over a restart of the API and over what says to come later; Ctrl-C ends in 130."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from api.live import KEY, create, upload
from cli.conftest import Penstock

from penstock.cli.patient_client import PatientClient
from penstock.stack.problem import Problem

LATER = {"retry-after": "0"}


@contextmanager
def answering(*answers: tuple[int, dict[str, str]]) -> Iterator[httpx.Client]:
    """A server that answers so, one after the other; 0 cuts the connection."""
    left = list(answers)

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers = left.pop(0)
            if not status:
                self.connection.close()
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "Not so."}}')

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False) as client:
            yield client
        server.shutdown()
    assert left == []


def test_what_comes_later_or_was_cut_is_asked_again() -> None:
    with answering((200, {}), (429, LATER), (503, LATER), (0, {}), (200, {})) as client:
        patient = PatientClient(client)
        patient.get("/")
        assert patient.get("/").status_code == 200


@pytest.mark.parametrize("answer", [(429, LATER | {"x-should-retry": "false"}), (404, {}), (500, {})])
def test_a_refusal_that_waiting_does_not_change_is_told_at_once(answer: tuple[int, dict[str, str]]) -> None:
    with answering(answer) as client, pytest.raises(Problem, match="Not so"):
        PatientClient(client, known=True).get("/")


def test_an_api_that_never_answered_well_is_not_waited_for() -> None:
    with answering((503, LATER)) as client, pytest.raises(Problem):
        PatientClient(client).get("/")
    with httpx.Client(base_url="http://127.0.0.1:1", trust_env=False) as client, pytest.raises(httpx.TransportError):
        PatientClient(client).get("/")


def test_a_list_is_kept_shown_until_ctrl_c(penstock: Penstock, client: httpx.Client) -> None:
    # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
    command = ["env", "--default-signal=INT", str(Path(sys.executable).with_name("penstock"))]
    command += ["batches", "list", "--watch", "--json"]
    environment = os.environ | {"PENSTOCK_URL": str(client.base_url), "PENSTOCK_API_KEY": KEY}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        try:
            assert watching.stdout is not None
            assert watching.stderr is not None
            assert json.loads(watching.stdout.readline())["data"] == []
            made = create(client, upload(client)["id"])["id"]
            assert [one["id"] for one in json.loads(watching.stdout.readline())["data"]] == [made]
            watching.send_signal(signal.SIGINT)
            assert (watching.wait(30), watching.stderr.read()) == (130, b"")
        finally:
            watching.kill()
