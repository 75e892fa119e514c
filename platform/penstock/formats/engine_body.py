"""Engine bodies: what an engine gets of a client's JSON: every field as it was written, but for an operator's own.

Values stay bytes from end to end: `1e999`, huge integers and lone surrogates mean to the engine what the client wrote.
Taken out are (vLLM 0.32: entrypoints/openai/*/protocol.py, entrypoints/pooling/*/protocol.py):

    priority                orders the engine's admission: our gate's rank goes there
    service_tier            resolved to a rank before; vLLM would only say it back, whatever was really used
    request_id              names the request inside the engine, in its logs and in the ids of its answers: ours does
    kv_transfer_params      name hosts that the engine fetches caches from or sends them to
    ec_transfer_params      the same for encoder caches
    vllm_xargs              passes, without names in it that vLLM reads in the place of the two above

`cache` (ours: the shared cache); `cache_salt` is replaced by one that no other tenant can hit. What only tunes one's
own request passes, and so do prompt_embeds, chat_template and media URLs: vLLM asks its operator's flags about those
(we start it so that it fetches media from no host, unless one is named).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from penstock.domain.inference_endpoints import SALTED, token_limit
from penstock.formats import sequences

_OPERATORS: Final = ("priority", "service_tier", "request_id", "kv_transfer_params", "ec_transfer_params")
_TAKEN_OUT: Final = (*_OPERATORS, "cache")
_OPERATORS_IN_XARGS: Final = ("kv_transfer_params", "ec_transfer_params")

# vLLM's own rule (validate_cache_salt), asked before hashing: what it refuses is refused, not hidden by the hash.
_MOST_SALT_CHARACTERS: Final = 128
_NOT_IN_SALT: Final = frozenset("@/\\\0")

# A name can be written with escapes, and `\u` alone can stand for a letter.
_WATCHED: Final = re.compile(rb'"(?:' + "|".join((*_TAKEN_OUT, "vllm_xargs", "cache_salt")).encode() + rb')"|\\u')
_FRONT: Final = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*")
_WHITE: Final = b" \t\r\n"

_MOST_PREFIX_BYTES: Final = 4_096
_LEAST_PREFIX_BYTES: Final = 256
_PREFIXED: Final = ("tools", "instructions", "messages", "prompt", "input")

_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read = msgspec.json.Decoder().decode
_read_flag = msgspec.json.Decoder(bool, strict=False).decode


@dataclass(frozen=True, slots=True)
class CallBody:
    """A waiting call's body as an engine may get it, and what routing needs to know of it."""

    body: bytes
    model: str | None
    """None if the client named none."""
    stream: bool
    """Whether it asks for a stream; what the engine answers is said by its content-type."""
    tier: str | None
    """The raw `service_tier`."""
    user: str | None
    prefix: bytes
    """Bytes that calls with a common beginning share; empty if it is too short to be worth a warm cache."""
    max_tokens: int | None
    """The most tokens that it lets the engine answer, if it says so."""
    sequences: int
    """How many texts an engine works on at once for it."""
    cache: object
    """What it says about the shared cache; None: nothing."""


def for_call(
    body: bytes, endpoint: str, tenant: str, isolate: bool, name_of: Callable[[str], str] = lambda model: model
) -> CallBody:
    """Read a waiting call's body once; raises ValueError, with a sentence for the client, on what can't be one.

    `name_of` says what engines call the model that it names.
    """
    fields = _fields(body)
    model = _text(fields, "model")
    tier = _text(fields, "service_tier")
    user = _value(fields, "user")
    if _asked(fields.get("background")):
        # It would go on in the engine after its answer, outside the gate. A job is what the client wants.
        raise ValueError("background is not supported; submit the request as a job instead.")
    whole = _rewritten(body, fields, endpoint, tenant, isolate)
    if model is not None and (name := name_of(model)) != model:
        whole = with_model(whole, name)
    return CallBody(
        body=whole,
        model=model,
        stream=_asked(fields.get("stream")),
        tier=tier,
        user=user if isinstance(user, str) and user else None,
        prefix=_prefix(fields),
        max_tokens=token_limit(endpoint, lambda name: _value(fields, name)),
        sequences=sequences.of_fields(fields),
        cache=_value(fields, "cache"),
    )


class _Named(msgspec.Struct):
    model: Any = None


_read_named = msgspec.json.Decoder(_Named).decode


def model_of(body: bytes) -> str | None:
    """The model that a client's JSON names; None too of what is no body: to say so is for `for_call`."""
    try:
        found = _read_named(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def for_line(body: bytes, endpoint: str, tenant: str, isolate: bool, priority: int | None) -> bytes:
    """A batch line's body for the engine; `priority` is None if the engine does not schedule by it.

    Raises ValueError on a `cache_salt` that vLLM would refuse.
    """
    if _WATCHED.search(body):
        # Only so are the fields looked at: most lines have nothing to take out, and go as they are.
        body = _rewritten(body, _fields(body), endpoint, tenant, isolate)
    elif isolate and endpoint in SALTED:
        body = _spliced(body, b'"cache_salt":"%b"' % _salt(tenant, ""))
    return body if priority is None else with_priority(body, priority)


def with_model(body: bytes, name: str) -> bytes:
    """The body with the model as its engine calls it. Raises ValueError on what is no JSON object."""
    return msgspec.json.encode(_fields(body) | {"model": msgspec.Raw(msgspec.json.encode(name))})


def with_priority(body: bytes, priority: int) -> bytes:
    """Say the engine's priority at the front of a body that has none."""
    return _spliced(body, b'"priority":%d' % priority)


def with_text(body: bytes, name: str, text: str) -> bytes:
    """Say a field at the front of a body that has none of this name."""
    return _spliced(body, msgspec.json.encode(name) + b":" + msgspec.json.encode(text))


def without_salt(body: bytes) -> bytes:
    """For an engine that has no `cache_salt`, and may refuse a field that it does not know."""
    if b'"cache_salt"' not in body and b"\\u" not in body:
        return body
    fields = _fields(body)
    return msgspec.json.encode(fields) if fields.pop("cache_salt", None) is not None else body


def _spliced(body: bytes, field: bytes) -> bytes:
    front = _FRONT.match(body)
    if not front:
        raise ValueError("The body must be a JSON object.")
    end = front.end()
    return b"{%b%b%b" % (field, b"" if body[end : end + 1] == b"}" else b",", body[end:])


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _read_fields(body)
    except msgspec.ValidationError:
        raise ValueError("The body must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("The body is not valid JSON.") from None


def _rewritten(body: bytes, fields: dict[str, msgspec.Raw], endpoint: str, tenant: str, isolate: bool) -> bytes:
    """The body without what is an operator's, and with the tenant's own salt where the endpoint has one."""
    kept = {name: value for name, value in fields.items() if name not in _TAKEN_OUT}
    changed = len(kept) < len(fields)
    xargs = fields.get("vllm_xargs")
    if xargs is not None and (safe := _without_transfer(xargs)) is not xargs:
        kept["vllm_xargs"], changed = safe, True
    field = b""
    if endpoint in SALTED:
        given = _given_salt(fields)
        changed |= kept.pop("cache_salt", None) is not None
        if isolate or given:
            field = b'"cache_salt":"%b"' % _salt(tenant, given)
    # A name that stands there twice means its last value, to msgspec as to the engine's reader.
    whole = msgspec.json.encode(kept) if changed else body
    return _spliced(whole, field) if field else whole


def _without_transfer(xargs: msgspec.Raw) -> msgspec.Raw:
    """vLLM merges vllm_xargs into the dictionary that it then asks for kv_transfer_params."""
    try:
        named = _read_fields(xargs)
    except (msgspec.DecodeError, RecursionError):
        return xargs  # No object, or a name that is no text: the engine refuses it.
    kept = {name: value for name, value in named.items() if name not in _OPERATORS_IN_XARGS}
    return xargs if len(kept) == len(named) else msgspec.Raw(msgspec.json.encode(kept))


def _given_salt(fields: dict[str, msgspec.Raw]) -> str:
    """The client's own salt, empty if there is none."""
    salt = _value(fields, "cache_salt")
    if salt is None and bytes(fields.get("cache_salt", b"null")).strip(_WHITE) == b"null":
        return ""
    if not isinstance(salt, str) or not salt or len(salt) > _MOST_SALT_CHARACTERS or _NOT_IN_SALT & set(salt):
        raise ValueError(
            f"cache_salt must be a text of 1 to {_MOST_SALT_CHARACTERS} characters without '@', '/', '\\' and NUL."
        )
    return salt


@lru_cache(maxsize=1_024)
def _salt(tenant: str, given: str) -> bytes:
    """Short, and of no use to others: whatever a tenant gives is hashed together with the tenant."""
    # A NUL stands in no tenant id and in no salt, so no two pairs run together.
    return hashlib.sha256(f"{tenant}\0{given}".encode()).hexdigest()[:32].encode()


def _prefix(fields: dict[str, msgspec.Raw]) -> bytes:
    """The prompt's beginning in the order in which chat templates put it, as it was written.

    Cut to a power of two, so that calls with one long common prompt and a short question each share all of it.
    """
    whole = b""
    for name in _PREFIXED:
        if name in fields and len(whole) < _MOST_PREFIX_BYTES:
            whole += bytes(memoryview(fields[name])[: _MOST_PREFIX_BYTES - len(whole)])
    if len(whole) < _LEAST_PREFIX_BYTES:
        return b""
    return whole[: 1 << (len(whole).bit_length() - 1)]


def _text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    raw = fields.get(name)
    if raw is None or bytes(raw) == b"null":
        return None
    value = _value(fields, name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string.")
    return value or None


def _value(fields: dict[str, msgspec.Raw], name: str) -> object:
    """A field's value; None if it is missing, or can't be decoded (a number out of range)."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return _read(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _asked(raw: msgspec.Raw | None) -> bool:
    """A flag as vLLM's reader takes it: true, 1 and "true" are all yes."""
    if raw is None:
        return False
    try:
        return _read_flag(raw)
    except (msgspec.DecodeError, RecursionError):
        return False  # null, or nothing that the engine would take
