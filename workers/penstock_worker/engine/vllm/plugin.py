"""The vLLM plugin (entry point group `vllm.general_plugins`), which each process of an engine loads as it starts.

It does something only in engines that were told to by their environment: those that Penstock starts.
"""

from penstock_worker.engine.vllm import idle_yield, scheduler_hook


def register() -> None:
    """What vLLM calls."""
    idle_yield.register()
    scheduler_hook.register()
