"""Engine errors: what an engine said of a request that it refused, as a waiting call and a line of a batch are told it.

One contract for both: OpenAI's envelope, a code that is a string or null, and words of ours where the engine's own
(`{"detail": "Not Found"}`) say nothing to who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.domain.api_errors import Internal, NoEndpoint, PenstockError

_MOST_QUOTED_BYTES: Final = 2_000
_CODES: Final = {"exceed_context_size_error": "context_length_exceeded"}
"""OpenAI's codes for kinds of errors that say more than their status: llama.cpp's."""
_NOT_JSON: Final = "not_json"
_NO_ROUTE: Final = ("Not Found", "File Not Found", "")
"""What says that there is no such endpoint: FastAPI's, llama.cpp's, and nothing."""
_WEB_PAGE: Final = "The engine answered with a web page."
_MOST_FIELDS: Final = 5


def error_body(message: str, kind: str, code: str | None, param: str | None = None) -> bytes:
    """OpenAI's envelope."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def ours(status: int, body: bytes, model: str, endpoint: str) -> PenstockError | None:
    """What we say in the place of an engine; None if its own words will do."""
    if _lacks_endpoint(status, body):
        return NoEndpoint(f"The model {model!r} has no {endpoint}.")
    if status < 400 or status in (401, 403):
        return Internal(f"The engine of {model!r} does not take requests from this platform.")
    return None


def told(status: int, body: bytes, model: str, endpoint: str) -> tuple[int, bytes]:
    """The status and the body that a refused line is told: what a waiting call would be told."""
    error = ours(status, body, model, endpoint)
    if error is not None:
        return error.status, error_body(error.message, error.type, error.code, error.param)
    return status, reshaped(status, body)


def reshaped(status: int, body: bytes) -> bytes:
    """An engine's error, whichever `ErrorShape` it has, in OpenAI's envelope; its code is text or null.

    What is not JSON is quoted (its first 2,000 bytes), with the code `not_json`; of a web page is said that it is one.
    """
    message, error = _said(body)
    kind = error.get("type")
    if not isinstance(kind, str) or not kind:
        kind = "invalid_request_error" if status < 500 else "server_error"
    code, param = error.get("code"), error.get("param")
    if not isinstance(code, str):  # vLLM's is the HTTP status
        code = "model_not_found" if status == 404 else _CODES.get(kind)
    return error_body(
        message or f"The engine answered with status {status}.", kind, code, param if isinstance(param, str) else None
    )


def _lacks_endpoint(status: int, body: bytes) -> bool:
    """Whether an engine says that it has no such endpoint for its model (vLLM: no route, or no handler)."""
    if status != 404:
        return status == 501
    message, error = _said(body)
    return message in _NO_ROUTE or error.get("code") == _NOT_JSON


def _said(body: bytes) -> tuple[str, Mapping[str, Any]]:
    """The message and the fields of an error: OpenAI's, one without an envelope, a text with its type beside it, or
    FastAPI's, which may list what is wrong with which field.
    """
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        quoted = body[:_MOST_QUOTED_BYTES].decode("utf-8", "replace").strip()
        return (_WEB_PAGE if quoted.startswith("<") else quoted), {"code": _NOT_JSON}
    if not isinstance(said, dict):
        return "", {}
    error = said.get("error", said)
    if isinstance(error, str):
        return error, {"type": said.get("error_type")}
    if not isinstance(error, dict):
        return "", {}
    message = error.get("message", error.get("detail"))
    if isinstance(message, list):
        message = "; ".join(_of_field(one) for one in message[:_MOST_FIELDS])
    return (message if isinstance(message, str) else ""), error


def _of_field(one: object) -> str:
    """One entry of FastAPI's list: where it is, and what is wrong there."""
    if not isinstance(one, dict):
        return str(one)[:_MOST_QUOTED_BYTES]
    place = one.get("loc")
    where = ".".join(map(str, place)) if isinstance(place, list) else ""
    return f"{where}: {one.get('msg', '')}"[:_MOST_QUOTED_BYTES]
