"""Prompts: what a request's input is to the engine's tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.domain.inference_endpoints import CALLED, PromptKind

_CHAT: Final = (
    "model",
    "messages",
    "tools",
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
)
_MOST_TEXTS: Final = 16

_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Prompt:
    """The bodies to ask `/tokenize` with, and tokens that are known already."""

    asks: tuple[bytes, ...] = ()
    known: int = 0


class _Extras(msgspec.Struct):
    min_tokens: Any = None
    ignore_eos: Any = None


_read_extras = msgspec.json.Decoder(_Extras).decode


def of(endpoint: str, body: bytes) -> Prompt | None:
    """The prompt of a checked body; None if the tokenizer can't be asked about such a one."""
    try:
        fields = _read_fields(body)
        kind = CALLED[endpoint].prompt
        if kind is PromptKind.MESSAGES:
            return Prompt((_encode({name: fields[name] for name in _CHAT if name in fields}),))
        if kind is PromptKind.RESPONSE:
            return _of_response(fields)
        if kind is not None:
            return _of_texts(fields["model"], msgspec.json.decode(fields[kind]))
    except (msgspec.DecodeError, KeyError, RecursionError):
        return None
    return None


def _of_texts(model: msgspec.Raw, prompt: Any) -> Prompt | None:
    """A text, some texts, or token numbers."""
    if isinstance(prompt, str):
        prompt = [prompt]
    if not isinstance(prompt, list) or not prompt:
        return None
    if all(isinstance(one, int) for one in prompt):
        return Prompt(known=len(prompt))
    if all(isinstance(one, list) for one in prompt):
        return Prompt(known=sum(map(len, prompt)))
    if len(prompt) > _MOST_TEXTS or not all(isinstance(one, str) for one in prompt):
        return None
    return Prompt(tuple(_encode({"model": model, "prompt": one}) for one in prompt))


def _of_response(fields: dict[str, msgspec.Raw]) -> Prompt | None:
    """Its texts as the conversation that the engine makes of them."""
    asked = msgspec.json.decode(fields["input"])
    items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    messages = []
    if "instructions" in fields:
        messages.append({"role": "system", "content": msgspec.json.decode(fields["instructions"])})
    for item in items if isinstance(items, list) else [None]:
        if not isinstance(item, dict) or "role" not in item:
            return None
        content = item.get("content")
        if isinstance(content, list):
            if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
                return None
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str):
            return None
        messages.append({"role": item["role"], "content": content})
    return Prompt((_encode({"model": fields["model"], "messages": messages}),))


def extras(body: bytes) -> tuple[int, bool]:
    """The least tokens of each answer that a body asks for, and whether it goes on to its limit."""
    try:
        found = _read_extras(body)
    except (msgspec.DecodeError, RecursionError):
        return 0, False
    return _number(found.min_tokens, 0, 10_000_000), found.ignore_eos is True


def _number(value: Any, least: int, most: int) -> int:
    return value if isinstance(value, int) and least <= value <= most else least
