"""The echo engine's script: what markers in a request make it do.

A marker may stand anywhere in the request's body, and several may stand together.

| marker | what happens |
|---|---|
| `[[die]]` | the engine kills itself with SIGKILL |
| `[[die-after 3]]` | it does so after 3 events of this stream |
| `[[core-dies]]` | as when vLLM's EngineCore dies: 500 or an error event to all, /health is 503, soon the end |
| `[[core-dies-after 3]]` | the same after 3 events of this stream |
| `[[hang]]` | no answer, until the client goes away |
| `[[stall-after 3]]` | nothing more after 3 events of this stream, until the client goes away |
| `[[break-after 3]]` | this connection breaks after 3 events; the engine lives |
| `[[break]]` | this connection breaks before the answer |
| `[[sleep 250]]` | the answer comes 250 ms later |
| `[[status 400]]` | that status, with an error body as vLLM's; 300 to 599 |
| `[[status 429 times 2]]` | that status the first 2 times that this very body comes, then an answer |
| `[[status 503 times 1 after 0.05]]` | as before, with `retry-after: 0.05` (seconds) |
| `[[says no]]` | the answer is `no` |
| `[[tokens 40]]` | an answer of 40 output tokens |
| `[[think 40]]` | 40 tokens of thoughts come first; if `max_tokens` ends them, the answer is empty |
| `[[needs 100]]` | 400 unless `max_tokens` is at least so much |
| `[[nul]]` | a NUL character in the answer |
| `[[surrogate]]` | a lone surrogate (`\\ud800` in JSON) in the answer |

How often a body came is forgotten when the engine starts again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_MARKER: Final = re.compile(
    rb"\[\[(?:(die|hang|break|core-dies|nul|surrogate)|(sleep|tokens|think|needs) (\d+)"
    rb"|(die|stall|break|core-dies)-after (\d+)|status ([345]\d\d)(?: times (\d+))?(?: after (\d+(?:\.\d+)?))?"
    rb'|says ([^\[\]"\\]{1,200}))\]\]'
)


@dataclass(frozen=True)
class Script:
    """What one request asks for."""

    die: bool = False
    hang: bool = False
    breaks: bool = False
    core_dies: bool = False
    after: int = 0
    """In a stream: what stands in `then` happens after so many events."""
    then: str = ""
    sleep_seconds: float = 0.0
    status: int = 0
    """0: an answer."""
    times: int | None = None
    """None: every time."""
    retry_after: str | None = None
    says: str | None = None
    """None: what was asked."""
    output_tokens: int | None = None
    thoughts: int = 0
    needs: int = 0
    nul: bool = False
    surrogate: bool = False


NOTHING: Final = Script()
_COUNTED: Final = {b"tokens": "output_tokens", b"think": "thoughts", b"needs": "needs"}
_WORDS: Final = {b"break": "breaks", b"core-dies": "core_dies"}


def read(body: bytes) -> Script:
    """The markers of a body; a body without any costs one search for two brackets."""
    if b"[[" not in body:
        return NOTHING
    found: dict[str, bool | int | float | str] = {}
    for word, counted, count, then, after, status, times, retry_after, says in _MARKER.findall(body):
        if word:
            found[_WORDS.get(word) or word.decode()] = True
        elif counted == b"sleep":
            found["sleep_seconds"] = int(count) / 1000
        elif counted in _COUNTED:
            found[_COUNTED[counted]] = int(count)
        elif says:
            found["says"] = says.decode()
        elif then:
            found |= {"then": then.decode(), "after": int(after)}
        else:
            found["status"] = int(status)
            if times:
                found["times"] = int(times)
            if retry_after:
                found["retry_after"] = retry_after.decode()
    return Script(**found)  # type: ignore[arg-type] # each by its own reader
