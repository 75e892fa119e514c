"""Headers that only the worker and its own engine know."""

from __future__ import annotations

from typing import Final

LINE: Final = "x-penstock-line"
"""Says that a request is a batch line: an engine that has `vllm/direct_handler.py` takes it past its web framework."""
