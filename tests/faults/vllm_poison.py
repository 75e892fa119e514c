"""A plugin for the real vLLM that makes a request poisonous: its EngineCore dies as soon as it schedules that request.

A request asks for it by `"vllm_xargs": {"poison": 1}`. It stands in for a kernel that crashes on some input; everything
else about the engine's death, of the processes and of the answers in flight, is vLLM's own.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor


class Poison(LogitsProcessor):
    """Looks at each request that joins the running batch, and changes no logits."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        pass

    def apply(self, logits: Any) -> Any:
        """Leave the logits as they are."""
        return logits

    def is_argmax_invariant(self) -> bool:
        """Greedy sampling is not affected."""
        return True

    def update_state(self, batch_update: Any) -> None:
        """Die if a poisonous request was added."""
        if batch_update is None:
            return
        for _, params, *_ in batch_update.added:
            if (params.extra_args or {}).get("poison"):
                os.kill(os.getpid(), signal.SIGKILL)
