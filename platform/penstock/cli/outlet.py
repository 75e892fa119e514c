"""The outlet: standard output and standard error, whatever they are: another encoding than UTF-8, full, or closed."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EINVAL})


def visible(words: str) -> str:
    """Words with what a terminal would obey (all controls but tab and line break) written as JSON writes it.

    Names and messages come from elsewhere: a model's, a file's, a server's. JSON stays JSON.
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", words)


@contextmanager
def writable() -> Iterator[None]:
    """Say everything somehow; where it can't be written, exit with 1, in one line unless the reader went away."""
    _begin()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `penstock … | head`
        mute()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        mute()
        sys.exit(f"penstock: What it has to say can't be written: {error.strerror}.")


def mute() -> None:
    """Write no more to standard output, at the interpreter's end neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _begin() -> None:
    """What an encoding does not have is written in escapes; one that is closed (`>&-`) takes everything."""
    # So Python says it that they are closed (docs.python.org/3/library/sys.html#sys.__stdout__).
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
