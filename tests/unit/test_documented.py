"""The check that every answer of the API's tests passes finds what is not documented."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from api import documented

JSON = "application/json"
FILE = {
    "id": "file-1", "object": "file", "bytes": 3, "created_at": 1, "expires_at": None, "filename": "f",
    "purpose": "batch", "status": "processed", "status_details": None,
}  # fmt: skip
ERROR = {"error": {"message": "m", "type": "invalid_request_error", "param": None, "code": None}}

GOOD: list[tuple[str, str, int, str, Any]] = [
    ("get", "/v1/files/file-1", 200, JSON, FILE),
    ("get", "/v1/files/file-1", 404, JSON, ERROR),
    ("get", "/v1/files/file-1/content", 206, "application/octet-stream", None),
    ("get", "/v1/files/file-1/content", 304, "", None),
    ("head", "/v1/files/file-1", 200, JSON, None),
    ("get", "/v1/models/org/name", 404, JSON, ERROR),
    ("post", "/v1/chat/completions", 200, "text/event-stream", None),
    ("get", "/v1/nothing", 404, JSON, ERROR),
    ("put", "/v1/files", 405, JSON, ERROR),
    ("get", "/docs", 200, "text/html", None),
]
BAD: list[tuple[str, str, int, str, Any, str]] = [
    ("get", "/v1/files/file-1", 200, JSON, FILE | {"bytes": "3"}, r"^\$\.bytes: '3' is not"),
    ("get", "/v1/files/file-1", 200, JSON, FILE | {"bytes": "3"}, r"by OpenAI's schema, \$\.bytes"),
    ("get", "/v1/files/file-1", 200, JSON, FILE | {"expires_at": "never"}, r"by OpenAI's schema, \$\.expires_at"),
    ("get", "/v1/files/file-1", 200, JSON, FILE | {"secret": 1}, "'secret' was unexpected"),
    ("get", "/v1/files/file-1", 200, JSON, {k: v for k, v in FILE.items() if k != "filename"}, "'filename' is a req"),
    ("get", "/v1/files/file-1", 201, JSON, FILE, "the status 201 is not documented"),
    ("get", "/v1/files/file-1", 404, JSON, {"detail": "Not Found"}, "'detail' was unexpected"),
    ("get", "/v1/files/file-1", 200, "text/plain", None, "the media type 'text/plain' is not documented"),
    ("get", "/v1/files/file-1", 200, "", None, "the media type '' is not documented"),
    ("post", "/v1/webhook_deliveries/replay", 200, JSON, {}, "'count' is a required property"),
    ("get", "/v1/nothing", 200, JSON, {}, "the page has no such path"),
    ("put", "/v1/files", 200, JSON, {}, "the page has no such method"),
]


@pytest.mark.parametrize(("method", "path", "status", "kind", "value"), GOOD)
def test_what_is_documented_passes(method: str, path: str, status: int, kind: str, value: Any) -> None:
    assert documented.faults(method, path, status, kind, value) == []


@pytest.mark.parametrize(("method", "path", "status", "kind", "value", "fault"), BAD)
def test_what_is_not_is_found(method: str, path: str, status: int, kind: str, value: Any, fault: str) -> None:
    found = documented.faults(method, path, status, kind, value)
    assert any(re.search(fault, one) for one in found), found


def test_a_client_with_the_check_lets_no_wrong_answer_pass() -> None:
    answers = iter([FILE, FILE | {"bytes": "3"}])
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=next(answers)))
    with httpx.Client(transport=transport, event_hooks={"response": [documented.check]}) as client:
        assert client.get("http://x/v1/files/file-1").json() == FILE
        with pytest.raises(AssertionError, match=r"GET /v1/files/file-1 answered 200:\n\$\.bytes"):
            client.get("http://x/v1/files/file-1")
