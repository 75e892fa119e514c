"""Transcripts: a request's texts as one text, for a model that reads it; and a request that asks about such a text."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.domain.inference_endpoints import CALLED, PromptKind
from penstock.formats.answers.written_answer import mended

_read = msgspec.json.Decoder(dict[str, Any]).decode
_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_OF_A_PROMPT: Final = frozenset(
    {
        "messages", "prompt", "input", "instructions", "previous_response_id", "n", "best_of", "echo", "suffix",
        "stream", "stream_options", "seed", "add_generation_prompt", "continue_final_message",
    }
)  # fmt: skip
"""What another prompt has no use for."""
_OF_THE_CALLER: Final = ("service_tier", "cache", "cache_salt", "user")
"""What the platform reads: for whom it is, how urgent, and with whom its answer and its beginning may be shared."""


def transcript(body: bytes) -> str:
    """What a request says: its instructions, and each message under its role; a prompt alone is itself."""
    try:
        fields = _read(mended(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    said = [f"system: {fields['instructions']}"] if isinstance(fields.get("instructions"), str) else []
    found = next((fields[name] for name in ("messages", "prompt", "input") if fields.get(name)), "")
    for one in found if isinstance(found, list) else [found]:
        text = _text(one.get("content") if isinstance(one, dict) else one)
        role = one.get("role") if isinstance(one, dict) else None
        said.append(f"{role}: {text}" if isinstance(role, str) else text)
    return "\n".join(said)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def with_prompt(endpoint: str, body: bytes, prompt: str | list[str], model: str, *, bare: bool = False) -> bytes:
    """A body like this one that asks this prompt of this model, and wants one answer.

    `endpoint` is one that writes; or one that embeds, `bare`, and then the prompt may be several texts.
    `bare`: of the body it keeps only what the platform reads, and none of what the answer is to be like.
    """
    try:
        fields = _read_fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = {}
    kept: dict[str, Any] = {
        name: value for name, value in fields.items() if (name in _OF_THE_CALLER if bare else name not in _OF_A_PROMPT)
    }
    kind = CALLED[endpoint].prompt
    assert kind is not None, "it has a prompt"
    asked: Any = [{"role": "user", "content": prompt}] if kind is PromptKind.MESSAGES else prompt
    name = "input" if kind is PromptKind.RESPONSE else kind.value
    written: bytes = _encode({**kept, "model": model, name: asked})
    return written
