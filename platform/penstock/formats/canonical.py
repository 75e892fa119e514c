"""Canonical requests: two requests with one fingerprint have one answer.

A request has a fingerprint only if it has one answer: it says temperature 0 or a seed, or its endpoint draws nothing at
random. The canonical form is the body with the names of its fields in order, and those of its messages; deeper down the
order stays as it was written, since a schema's order is the order of the answer that it shapes, and a template prints
tools as they came. What cannot change an answer is left out; what is not known to be idle stays in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.domain.inference_endpoints import COMPUTING, WRITING

# No engine sees these: engine_body takes them out. A `stream_options` without a stream
# is an error of its own, and so is a bad `cache_salt`: they stay.
_IDLE: Final = ("priority", "service_tier", "request_id", "kv_transfer_params", "ec_transfer_params", "cache")
# Responses say these back.
_IDLE_BUT_SAID_BACK: Final = ("metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
_FINGERPRINT_BYTES: Final = 16

_read = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode


def fingerprint(url: str, body: bytes | Mapping[str, Any]) -> bytes | None:
    """16 bytes that equal requests share; None if the request may be answered otherwise when it is asked again.

    `body` is the request's JSON, or what it decoded to. The model's name in the body is part of it; who asks is not.
    """
    if isinstance(body, bytes):
        if url in WRITING and b'"temperature"' not in body and b'"seed"' not in body:
            return None  # without decoding: most lines that draw say neither
        try:
            body = _read(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
    if not isinstance(body, Mapping) or not is_deterministic(url, body):
        return None
    idle = _IDLE if url == "/v1/responses" else (*_IDLE, *_IDLE_BUT_SAID_BACK)
    form = {name: body[name] for name in sorted(body) if name not in idle}
    if form.get("stream") in (False, None):
        form.pop("stream", None)
    if url != "/v1/responses" and isinstance(form.get("user"), str):
        del form["user"]
    if isinstance(messages := form.get("messages"), list):
        form["messages"] = [_in_order(message) for message in messages]
    try:
        written = _write(form)
    except (UnicodeEncodeError, RecursionError):  # half a surrogate pair, from another reader than ours
        return None
    return hashlib.blake2b(url.encode() + b"\0" + written, digest_size=_FINGERPRINT_BYTES).digest()


def is_deterministic(url: str, body: Mapping[str, Any]) -> bool:
    """Whether a request has one answer, which does not depend on what else was asked before or is stored elsewhere."""
    if body.get("stream") not in (False, None):
        return False
    if url in COMPUTING:
        return True
    if url not in WRITING or body.get("background") or body.get("previous_response_id") or body.get("conversation"):
        return False
    temperature, seed = body.get("temperature"), body.get("seed")
    cold = isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0
    # To vLLM -1 is no seed (SamplingParams.__post_init__).
    seeded = isinstance(seed, int) and not isinstance(seed, bool) and seed != -1
    return (cold or seeded) and not _uses_the_world(url, body)


def _uses_the_world(url: str, body: Mapping[str, Any]) -> bool:
    """Responses can have tools that the server runs itself: a search, another server."""
    tools = body.get("tools")
    if url != "/v1/responses" or not tools:
        return False
    return not isinstance(tools, list) or any(not isinstance(t, dict) or t.get("type") != "function" for t in tools)


def _in_order(message: Any) -> Any:
    return {name: message[name] for name in sorted(message)} if isinstance(message, dict) else message
