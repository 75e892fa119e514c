"""A batch's pace: lines and tokens a second over the last while, from what was seen of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

WINDOW_SECONDS: Final = 30.0


@dataclass(frozen=True)
class BatchSpeed:
    """A second: lines that ended, answered or failed, and tokens of answers."""

    lines: float
    tokens: float

    @property
    def words(self) -> str:
        """`12.5 lines/s · 410 tokens/s`."""
        return f"{self.lines:,.1f} lines/s · {self.tokens:,.0f} tokens/s"


class BatchPace:
    """What was seen of one batch in the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def note(self, ended_lines: int, output_tokens: int, now: float) -> None:
        """Take in how far it was at this monotonic time (seconds)."""
        self._seen.append((now, ended_lines, output_tokens))
        while now - self._seen[0][0] > WINDOW_SECONDS:
            self._seen.popleft()

    def now(self) -> BatchSpeed | None:
        """How fast it is; None until it was seen twice."""
        (began, lines_then, tokens_then), (now, lines, tokens) = self._seen[0], self._seen[-1]
        seconds = now - began
        if seconds <= 0:
            return None
        return BatchSpeed((lines - lines_then) / seconds, (tokens - tokens_then) / seconds)
