"""Text pieces: a whole text cut into those that a stream says one after the other, each with its tokens' logprobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

_LEAST_CHARACTERS: Final = 64
_MOST_PIECES: Final = 256
_NULL: Final = msgspec.Raw(b"null")
_read_columns = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Token(msgspec.Struct):
    token: str


_read_tokens = msgspec.json.Decoder(list[str | _Token]).decode


def pieces(text: str, tokens: Sequence[str] = ()) -> Iterator[tuple[str, slice]]:
    """The text in at most 256 pieces, and which of its tokens each is made of.

    Where tokens don't make up the text (half a character is one, say), all of both is one piece.
    """
    each = max(_LEAST_CHARACTERS, -(-len(text) // _MOST_PIECES))
    if not tokens:
        yield from ((text[start : start + each], slice(0, 0)) for start in range(0, len(text), each))
        return
    if "".join(tokens) != text:
        yield text, slice(0, len(tokens))
        return
    first, held = 0, 0
    for place, token in enumerate(tokens, 1):
        held += len(token)
        if held >= each or place == len(tokens):
            yield "".join(tokens[first:place]), slice(first, place)
            first, held = place, 0


class Logprobs:
    """How sure a choice's tokens were: columns of one row a token, of which each piece of its text gets its own."""

    def __init__(self, written: msgspec.Raw, column: str) -> None:
        """`column` is where its tokens stand: texts, or objects that have one in `token`."""
        self.tokens: list[str] = []
        self.last: Any = written
        """What the choice's end says, behind all pieces: all of them, where no token is known."""
        try:
            named = _read_columns(written)
            found = [one if isinstance(one, str) else one.token for one in _read_tokens(named[column])]
            rows = {name: _read_rows(raw) for name, raw in named.items() if bytes(raw)[:1] == b"["}
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
            return
        if found:
            self.tokens, self.last = found, _NULL
            self._columns = {name: column for name, column in rows.items() if len(column) == len(found)}
            self._rest: dict[str, Any] = {name: raw for name, raw in named.items() if name not in self._columns}

    def of(self, rows: slice) -> Any:
        """What a piece says that is made of these tokens."""
        if not self.tokens:
            return _NULL
        rest = self._rest if rows.start == 0 else dict.fromkeys(self._rest)
        return rest | {name: column[rows] for name, column in self._columns.items()}
