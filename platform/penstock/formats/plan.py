"""The plan copy and everything shaped like it: `<line number>\\t<line>\\n`, in the order of work.

The plan copy holds input lines; segments and compacted slices hold output lines in the same frame.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator


def frame(number: int, line: bytes) -> bytes:
    """One framed line. `line` has no line end inside."""
    return b"%d\t%b\n" % (number, line)


def unframe(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a range that starts and ends at frame borders; raises ValueError if it does not."""
    if data and not data.endswith(b"\n"):
        raise ValueError("the range is cut inside a line")
    for framed in data.splitlines() if b"\r" not in data else data[:-1].split(b"\n"):
        number, tab, line = framed.partition(b"\t")
        if not tab:
            raise ValueError("a line has no number")
        yield int(number), line


async def unframed(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[tuple[int, bytes]]]:
    """The same of a range that comes in pieces: the lines that are whole with each; raises ValueError."""
    rest = b""
    async for piece in pieces:
        whole, newline, end = piece.rpartition(b"\n")
        if not newline:
            rest += end
            continue
        yield list(unframe(rest + whole + newline))
        rest = end
    if rest:
        raise ValueError("the range is cut inside a line")
