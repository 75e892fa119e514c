"""The vLLM plugin (entry point group `vllm.general_plugins`), which each process of an engine loads as it starts.

It does something only in engines that were told to by their environment: those that Penstock starts.
"""

from penstock_worker.engine import naps, turns


def register() -> None:
    """What vLLM calls."""
    naps.register()
    turns.register()
