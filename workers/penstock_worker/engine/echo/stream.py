"""How the echo engine streams: an answer cut into events as vLLM's, one a token where the request says how many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

Body = dict[str, Any]
Event = tuple[str, Body, bool]
"""Its name (empty in the older endpoints), what it says, and whether it carries a token."""

KINDS: Final = {
    "/v1/chat/completions": "chat.completion.chunk",
    "/v1/completions": "text_completion",
    "/v1/responses": "response",
}


def events(said: Body, kind: str, tokens: int | None, with_usage: bool) -> Iterator[Event]:
    """The stream of a whole answer; `tokens` is how many events an answer's text is cut into (None: one a word)."""
    if kind == "response":
        return _response(said, tokens)
    return _completion(said, kind, tokens, with_usage)


def _completion(said: Body, kind: str, tokens: int | None, with_usage: bool) -> Iterator[Event]:
    head = {"id": said["id"], "object": kind, "created": said["created"], "model": said["model"]}
    chat = kind == "chat.completion.chunk"
    for choice in said["choices"]:
        index = choice["index"]
        if chat:
            first = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            yield "", head | {"choices": [first]}, False
        for piece in _pieces(choice["message"]["content"] if chat else choice["text"], tokens):
            delta: Body = {"delta": {"content": piece}} if chat else {"text": piece}
            yield "", head | {"choices": [{"index": index, **delta, "finish_reason": None}]}, True
        end: Body = {"delta": {}} if chat else {"text": ""}
        yield "", head | {"choices": [{"index": index, **end, "finish_reason": choice["finish_reason"]}]}, False
    if with_usage:
        yield "", head | {"choices": [], "usage": said["usage"]}, False


def _response(said: Body, tokens: int | None) -> Iterator[Event]:
    item = said["output"][0]
    text = item["content"][0]["text"]
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    number = 0

    def event(name: str, more: Body, token: bool = False) -> Event:
        nonlocal number
        number += 1
        return name, {"type": name, "sequence_number": number - 1, **more}, token

    begun = said | {"status": "in_progress", "output": [], "usage": None}
    yield event("response.created", {"response": begun})
    yield event("response.in_progress", {"response": begun})
    opened = {"output_index": 0, "item": item | {"status": "in_progress", "content": []}}
    yield event("response.output_item.added", opened)
    empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    yield event("response.content_part.added", place | {"part": empty})
    for piece in _pieces(text, tokens):
        yield event("response.output_text.delta", place | {"delta": piece, "logprobs": []}, token=True)
    yield event("response.output_text.done", place | {"text": text, "logprobs": []})
    yield event("response.content_part.done", place | {"part": item["content"][0]})
    yield event("response.output_item.done", {"output_index": 0, "item": item})
    yield event("response.completed", {"response": said})


def _pieces(text: str, tokens: int | None) -> Sequence[str]:
    """A text in so many pieces of about the same length, or in words."""
    if tokens is None:
        *words, last = text.split(" ")
        return [piece for piece in [*(word + " " for word in words), last] if piece]
    return [text[len(text) * i // tokens : len(text) * (i + 1) // tokens] for i in range(tokens)]
