"""The token probe: one small request to an engine that says it is ready; a model that writes writes one token.

An engine may answer its health probe and finish no request: after a wake that failed, or with a queue that hangs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from penstock.domain.inference_endpoints import TABLE, PromptKind
from penstock_worker.engine.process import probe

_PROMPTS: Final[dict[PromptKind, dict[str, Any]]] = {
    PromptKind.PROMPT: {"prompt": "1"},
    PromptKind.MESSAGES: {"messages": [{"role": "user", "content": "1"}]},
    PromptKind.INPUT: {"input": "1"},
}
"""In the order of the tries: the first that the model can answer proves it."""
_ABORTED: Final = "abort"


def fault(socket: Path, model: str, timeout_seconds: float) -> str:
    """Why the engine can't be trusted with work, in a sentence; empty if it answered.

    A model that refuses all of these (a reranker) has answered too: its loop is not seen.
    """
    for kind, prompt in _PROMPTS.items():
        row = next(row for row in TABLE if row.prompt is kind)
        body = {"model": model, **prompt, **dict.fromkeys(row.token_limits[-1:], 1)}
        answer = probe.post(socket, row.url, json.dumps(body).encode(), timeout_seconds)
        if answer is None:
            return "It has not answered a request for one token."
        status, said = answer
        if status == 200:
            return "It aborted a request for one token." if _aborted(said) else ""
        if status >= 500:
            return f"It answered a request for one token with status {status}."
    return ""


def _aborted(said: bytes) -> bool:
    """vLLM that is put to sleep ends what it works on so, with status 200."""
    try:
        choices = json.loads(said).get("choices", [])
        return any(choice.get("finish_reason") == _ABORTED for choice in choices)
    except (ValueError, AttributeError, TypeError):
        return False
