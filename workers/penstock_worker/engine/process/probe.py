"""Probes: short blocking questions to an engine on its unix socket, from the supervisor's thread."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("engine", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get(path: Path, url: str, timeout_seconds: float) -> tuple[int, bytes] | None:
    """Status and body of one GET on a fresh connection; None if there is no answer in time."""
    return _ask(path, "GET", url, None, timeout_seconds)


def post(path: Path, url: str, body: bytes, timeout_seconds: float) -> tuple[int, bytes] | None:
    """The same of one POST of a JSON body."""
    return _ask(path, "POST", url, body, timeout_seconds)


def _ask(path: Path, method: str, url: str, body: bytes | None, timeout_seconds: float) -> tuple[int, bytes] | None:
    connection = _UnixConnection(path, timeout_seconds)
    headers = {"connection": "close"} | ({} if body is None else {"content-type": "application/json"})
    try:
        connection.request(method, url, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def healthy(path: Path, timeout_seconds: float, health_path: str = "/health") -> bool:
    """True if it says 200 there. vLLM says 503 once its EngineCore is dead, while its server still answers."""
    answer = get(path, health_path, timeout_seconds)
    return answer is not None and answer[0] == 200


def serves(path: Path, model: str, timeout_seconds: float) -> bool:
    """True if /v1/models lists the model."""
    return model in names(path, timeout_seconds)


def names(path: Path, timeout_seconds: float) -> list[str]:
    """What /v1/models lists: the model, and adapters on it; nothing if there is no good answer."""
    answer = get(path, "/v1/models", timeout_seconds)
    if answer is None or answer[0] != 200:
        return []
    try:
        return [str(entry["id"]) for entry in json.loads(answer[1])["data"]]
    except (ValueError, KeyError, TypeError):
        return []
