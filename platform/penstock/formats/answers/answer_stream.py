"""Answer streams: a whole answer as the events of a stream, as its endpoint would have sent them.

a chat          for each choice its role, its thoughts, its text in pieces, why it ended · usage if asked · [DONE]
a completion    for each choice its text in pieces, why it ended · usage if asked · [DONE]
a response      see response_stream

Put together again they are the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from penstock.domain.inference_endpoints import CALLED, PromptKind
from penstock.formats.answers.response_stream import response_events
from penstock.formats.answers.text_pieces import Logprobs, pieces

DONE: Final = b"data: [DONE]\n\n"
_NULL: Final = msgspec.Raw(b"null")
_KEPT: Final = ("id", "created", "model", "service_tier", "system_fingerprint")
"""What each event says of its answer; `object` is the endpoint's own."""
_NOTHING: Final = (b"null", b"[]")
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")

_Fields = dict[str, msgspec.Raw]
_read_fields = msgspec.json.Decoder(_Fields).decode
_read_choices = msgspec.json.Decoder(list[_Fields]).decode
_read = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def answer_events(body: bytes, endpoint: str, *, with_usage: bool) -> list[bytes]:
    """The events of an answer to an endpoint that writes; what has no such shape is one event, as it is.

    Some 300 for each choice at most. An answer of a megabyte takes milliseconds.
    """
    kind = CALLED[endpoint].prompt
    try:
        fields = _read_fields(body)
        fields.pop("penstock", None)  # a stream says it in its head
        if kind is PromptKind.RESPONSE:
            return list(response_events(fields))
        return [*map(_event, _chunks(fields, chat=kind is PromptKind.MESSAGES, with_usage=with_usage)), DONE]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, RecursionError):
        return [b"data: " + body.translate(_ONE_LINE) + b"\n\n", DONE]


def _event(chunk: Mapping[str, Any]) -> bytes:
    return b"data: " + _encode(chunk) + b"\n\n"


def _chunks(fields: _Fields, *, chat: bool, with_usage: bool) -> Iterator[dict[str, Any]]:
    kind = "chat.completion.chunk" if chat else "text_completion"
    head: dict[str, Any] = {"object": kind} | {name: fields[name] for name in _KEPT if name in fields}
    for place, choice in enumerate(_read_choices(fields["choices"])):
        for one in _of_chat(choice) if chat else _of_completion(choice):
            yield {**head, "choices": [{"index": choice.get("index", place), **one}]}
    if with_usage and "usage" in fields:
        yield {**head, "choices": [], "usage": fields["usage"]}


def _of_chat(choice: _Fields) -> Iterator[dict[str, Any]]:
    message = _read_fields(choice["message"])
    content = _read(message.get("content", _NULL))
    logprobs = Logprobs(choice.get("logprobs", _NULL), "content")
    begun = {"role": message.get("role", "assistant"), "content": "" if isinstance(content, str) else None}
    yield _more({"delta": begun})
    for name, raw in message.items():
        if name not in ("role", "content") and bytes(raw) not in _NOTHING:
            yield from (_more({"delta": {name: piece}}) for piece in _parts(name, _read(raw)))
    if isinstance(content, str):
        for piece, rows in pieces(content, logprobs.tokens):
            yield _more({"delta": {"content": piece}}, logprobs.of(rows))
    elif content is not None:
        yield _more({"delta": {"content": content}})
    yield {"delta": {}, **_end(choice, logprobs)}


def _of_completion(choice: _Fields) -> Iterator[dict[str, Any]]:
    logprobs = Logprobs(choice.get("logprobs", _NULL), "tokens")
    for piece, rows in pieces(msgspec.json.decode(choice["text"], type=str), logprobs.tokens):
        yield _more({"text": piece}, logprobs.of(rows))
    yield {"text": "", **_end(choice, logprobs)}


def _more(said: dict[str, Any], logprobs: Any = _NULL) -> dict[str, Any]:
    return {**said, "logprobs": logprobs, "finish_reason": None}


def _end(choice: _Fields, logprobs: Logprobs) -> dict[str, Any]:
    """Why a choice ended, and what its engine says of it beside that."""
    rest = {name: raw for name, raw in choice.items() if name not in ("index", "message", "text", "logprobs")}
    return {"logprobs": logprobs.last, "finish_reason": None, **rest}


def _parts(name: str, value: Any) -> Iterator[Any]:
    """What a message says beside its text: thoughts in pieces, calls under their numbers."""
    if isinstance(value, str):
        yield from (piece for piece, _ in pieces(value))
    elif name == "tool_calls" and isinstance(value, list):
        yield from ([{"index": place, **call}] for place, call in enumerate(value) if isinstance(call, dict))
    else:
        yield value
