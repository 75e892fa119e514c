"""Nesting: how deep a JSON value of a client's may be that is kept and shown again: what shows it takes no more."""

from __future__ import annotations

from typing import Any, Final

MOST_LEVELS: Final = 100


def is_too_deep(value: Any, most: int = MOST_LEVELS) -> bool:
    """Whether lists and objects stand in each other on more levels than this."""
    level = [value]
    for _ in range(most):
        level = [inner for one in level if isinstance(one, list | dict) for inner in _inside(one)]
        if not level:
            return False
    return any(isinstance(one, list | dict) for one in level)


def _inside(one: list[Any] | dict[str, Any]) -> Any:
    return one.values() if isinstance(one, dict) else one
