"""The blob store: one small face over obstore, for disk, S3, GCS and Azure."""

from __future__ import annotations

import errno
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError
from obstore.store import LocalStore, ObjectStore, from_url

from penstock.blobs import fault_tally
from penstock.domain.api_errors import NoSpace, Unavailable, Unreadable

CHUNK_BYTES = 4 * 1024 * 1024

# What each upload and each download may hold: little, since hundreds of clients may be slow at once. An object store
# takes no parts under 5 MiB (S3), and each read of it is a request.
DISK_PIECE_BYTES = 128 * 1024
WRITE_PIECE_BYTES = 8 * 1024 * 1024
READ_PIECE_BYTES = 1024 * 1024
_PARTS_AT_ONCE = 2


def is_full(error: Exception) -> bool:
    """Whether it says that a disk, a quota or a largest file size is reached; obstore has the system's words only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return any(f"os error {number}" in str(error) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


@contextmanager
def _full_is_no_space() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        if is_full(error):
            fault_tally.note("full")
            raise NoSpace("The blob store is full.") from error
        raise


@contextmanager
def away_is_unavailable() -> Iterator[None]:
    """For callers that can be told to come again: a full store is NoSpace, any other failure is Unavailable."""
    try:
        with _full_is_no_space():
            yield
    except (BaseError, OSError) as error:  # obstore's writers raise a plain OSError
        fault_tally.note("away")
        raise Unavailable("The blob store is away; try again shortly.") from error


@contextmanager
def _reading(key: str) -> Iterator[None]:
    """What is not there, or is shorter than it must be, is Unreadable; any other failure may pass: Unavailable."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        fault_tally.note("missing")
        raise Unreadable(f"blob {key} is missing") from error
    except BaseError as error:
        if "range was invalid" in str(error) or "InvalidRange" in str(error):
            fault_tally.note("short")
            raise Unreadable(f"blob {key} is shorter than it should be") from error
        fault_tally.note("away")
        raise Unavailable("The blob store is away; try again shortly.") from error


def _whole(key: str, data: bytes, length: int) -> bytes:
    if len(data) != length:
        fault_tally.note("short")
        raise Unreadable(f"blob {key} is shorter than it should be")
    return data


class Blobs:
    """Bytes by key. Keys are written once, never overwritten, and unguessable."""

    def __init__(self, url: str) -> None:
        parsed = urlparse(url)
        self._store: ObjectStore
        self._root: Path | None = None
        if parsed.scheme == "file":
            root = Path(unquote(parsed.path))
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._root = root
            self._store = LocalStore(root)
        else:
            self._store = from_url(url)

    def put(self, key: str, data: bytes) -> None:
        """Write a small blob whole; raise NoSpace or Unavailable."""
        with away_is_unavailable():
            obstore.put(self._store, key, data)

    @contextmanager
    def writer(self, key: str) -> Iterator[obstore.WritableFile]:
        """Write a blob piece by piece with flat memory; it becomes visible at the end, or not at all.

        Raises NoSpace or Unavailable.
        """
        with away_is_unavailable():
            file = obstore.open_writer(self._store, key, buffer_size=WRITE_PIECE_BYTES, max_concurrency=_PARTS_AT_ONCE)
            yield file
            file.close()

    def open_upload(self, key: str) -> obstore.AsyncWritableFile:
        """A writer for an event loop: `await write(bytes)`, then `await close()`; without it nothing is visible."""
        size = WRITE_PIECE_BYTES if self._root is None else DISK_PIECE_BYTES
        return obstore.open_writer_async(self._store, key, buffer_size=size, max_concurrency=_PARTS_AT_ONCE)

    def range(self, key: str, offset: int, length: int) -> bytes:
        """Read a part of a blob; raise Unreadable."""
        with _reading(key):
            data = bytes(obstore.get_range(self._store, key, start=offset, length=length))
        return _whole(key, data, length)

    def read(self, key: str) -> bytes:
        """Read a small blob whole; raise Unreadable."""
        with _reading(key):
            return bytes(obstore.get(self._store, key).bytes())

    def pieces(self, key: str) -> Iterator[bytes]:
        """Read a blob in pieces of some MiB; raise Unreadable."""
        with _reading(key):
            for piece in obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(piece)

    def lines(self, key: str, longest: int | None = None) -> Iterator[bytes]:
        """Read a blob line by line, without the line ends; raise Unreadable.

        Of a line that is some MiB longer than `longest` only the beginning comes, so that no line fills the memory.
        """
        rest = b""
        for piece in self.pieces(key):
            whole, newline, end = piece.rpartition(b"\n")
            if newline:
                yield from (rest + whole).split(b"\n")
                rest = end
            elif longest is None or len(rest) <= longest:
                rest += end
        if rest:
            yield rest

    async def stream(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Read the bytes from `start` up to `end` in small pieces, from an event loop; raise Unreadable."""
        size = READ_PIECE_BYTES if self._root is None else DISK_PIECE_BYTES
        with _reading(key):
            for offset in range(start, end, size):
                length = min(size, end - offset)
                yield bytes(await obstore.get_range_async(self._store, key, start=offset, length=length))

    async def part(self, key: str, start: int, end: int) -> bytes:
        """Read the bytes from `start` up to `end` at once, from an event loop; raise Unreadable."""
        if start >= end:
            return b""
        with _reading(key):
            data = bytes(await obstore.get_range_async(self._store, key, start=start, length=end - start))
        return _whole(key, data, end - start)

    def delete(self, key: str) -> None:
        """Delete a blob, and what a cut upload left of it; it is no error if nothing is there."""
        with _missing_ok():
            obstore.delete(self._store, key)
        if self._root is not None:  # on disk, a write that was cut leaves `<key>#<n>`, n from 1 (object_store 0.12)
            for number in itertools.count(1):  # not a glob: that reads the whole folder, 40 ms for 20,000 blobs
                try:
                    Path(self._root, f"{key}#{number}").unlink()
                except FileNotFoundError:
                    break

    async def look(self, key: str) -> None:
        """See whether the store answers, by a blob that need not be there; raise Unavailable, with the cause.

        S3 says "forbidden" of what is not there to whoever may not list the bucket: an answer, too.
        """
        with away_is_unavailable(), _missing_ok(), suppress(PermissionDeniedError):
            await obstore.head_async(self._store, key)

    async def try_out(self, key: str) -> None:
        """Write, read and delete a small blob; raise NoSpace, Unreadable or Unavailable, with the cause."""
        with away_is_unavailable():
            await obstore.put_async(self._store, key, b"ready")
            with _reading(key):
                await obstore.get_range_async(self._store, key, start=0, length=5)
            await obstore.delete_async(self._store, key)


@contextmanager
def _missing_ok() -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError):
        return
