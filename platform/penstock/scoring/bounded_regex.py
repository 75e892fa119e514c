"""Regular expressions of clients: each search has a time-out, since some need more time than there is (ReDoS)."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from penstock.domain.api_errors import BadRequest

MOST_CHARACTERS: Final = 1_000
MOST_REPEATS: Final = 100_000
"""What all counts in braces multiply to: the compiler writes a nested `(a{1000}){1000}` out."""
SECONDS: Final = 0.1
"""Of one search. An honest pattern takes microseconds."""
MOST_TIMEOUTS: Final = 50
"""After so many a search has LATER_SECONDS: a file of a million lines must not take a day."""
LATER_SECONDS: Final = 0.005
"""Still a thousand times what an honest search takes: what some texts do to a pattern costs others nothing."""


class PatternTooSlow(Exception):
    """The search took too long."""


class BoundedRegex:
    """One pattern. It is searched for anywhere, as `re.search` does."""

    def __init__(self, pattern: str, param: str | None = None) -> None:
        """Raises BadRequest if it is none."""
        import regex

        if len(pattern) > MOST_CHARACTERS:
            raise BadRequest(f"A pattern has at most {MOST_CHARACTERS} characters.", param=param)
        if math.prod(max(1, int(count[:9])) for count in re.findall(r"\{(\d+)", pattern)) > MOST_REPEATS:
            raise BadRequest(f"The counts of a pattern may multiply to {MOST_REPEATS} at most.", param=param)
        try:
            self._compiled: Any = regex.compile(pattern)
        except (regex.error, RecursionError, OverflowError, ValueError) as error:
            raise BadRequest(f"The pattern is none: {error or type(error).__name__}.", param=param) from None
        self._timeouts = 0

    def find(self, text: str) -> str | None:
        """The first match: its first group if the pattern has one, else all of it; None if there is none.

        Raises PatternTooSlow.
        """
        seconds = SECONDS if self._timeouts < MOST_TIMEOUTS else LATER_SECONDS
        try:
            found = self._compiled.search(text, timeout=seconds, concurrent=True)
        except TimeoutError:
            self._timeouts += 1
            raise PatternTooSlow from None
        if found is None:
            return None
        group: str | None = found[1] if self._compiled.groups else found[0]
        return group or ""
