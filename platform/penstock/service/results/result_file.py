"""Result files: an output or error file as it is written, line by line; nobody sees it before it is published."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from penstock.blobs.store import Blobs
from penstock.service.core.ids import blob_key, fresh
from penstock.service.core.transaction import Database, Transaction
from penstock.store.batches import files


@dataclass(frozen=True)
class Written:
    """A file that is whole in the blob store and waits to be published."""

    id: str
    key: str
    filename: str
    size_bytes: int
    sha256: bytes
    lines: int
    index_key: str | None = None


def publish(
    tx: Transaction, tenant: str, written: Written, *, purpose: str, ttl: timedelta | None, id: str | None = None
) -> None:
    """Make a file visible: under its own id, unless one was promised for it."""
    files.insert(
        tx.conn,
        tenant,
        id=id or written.id,
        purpose=purpose,
        filename=written.filename,
        bytes=written.size_bytes,
        sha256=written.sha256,
        blob_key=written.key,
        ttl=ttl,
        index_key=written.index_key,
    )


class ResultFile:
    """One file, used with `with`; `written` says what became of it. Without a line there is no file."""

    def __init__(self, db: Database, blobs: Blobs, tenant: str, filename: str) -> None:
        self.written: Written | None = None
        self._db = db
        self._blobs = blobs
        self._tenant = tenant
        self._filename = filename
        self._stack = ExitStack()
        self._file: Any = None
        self._key = ""
        self._sha256 = hashlib.sha256()
        self._bytes = self._lines = 0

    def __enter__(self) -> Self:
        return self

    def line(self, line: bytes) -> None:
        """Write one more line, which has no line end."""
        if self._file is None:
            self._key = blob_key(self._tenant, "files")
            self._db.run(lambda tx: files.intend(tx.conn, self._key))
            self._file = self._stack.enter_context(self._blobs.writer(self._key))
        data = line + b"\n"
        self._sha256.update(data)
        self._file.write(data)
        self._bytes, self._lines = self._bytes + len(data), self._lines + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if self._lines and error is None:
            sealed = self._key, self._filename, self._bytes, self._sha256.digest(), self._lines
            self.written = Written(fresh("file-"), *sealed)
