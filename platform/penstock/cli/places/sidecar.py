"""The sidecar: a small JSON file beside OUT that says what was sent where, so that the same command again goes on.

It is written whole, under another name, and renamed: a reader sees the old one or the new one. What was sent has an
Idempotency-Key of the sidecar's own, so that a create whose answer was lost makes no second batch.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from penstock.cli.own_files import beside, part_of
from penstock.stack.problem import Problem

VERSION: Final = 1


@dataclass
class Part:
    """One batch of a run: its lines, and how far they came back."""

    endpoint: str
    lines: int
    file: str | None = None
    """The id of its input file, once it is uploaded."""
    batch: str | None = None
    had: int = 0
    """How many of its lines are in OUT.part."""
    retried: int = 0
    """How often its failed lines were asked again; `batch` is then the last retry, and has merged files."""


@dataclass
class Sidecar:
    """What is known of a command's OUT."""

    file: Path
    identity: dict[str, str]
    """What must be the same for the command to go on, by name: digests, and flags as they were given."""
    nonce: str
    parts: list[Part] = field(default_factory=list)
    part_bytes: int = 0
    """How much of OUT.part is whole."""
    ended: bool = False
    """OUT is written."""
    more: dict[str, Any] = field(default_factory=dict)
    """The command's own."""
    left_behind: list[str] = field(default_factory=list)
    """Batches of an earlier call, which nobody waits for any more since this one started over."""

    def save(self) -> None:
        """Write it anew."""
        found = {name: value for name, value in asdict(self).items() if name != "file"}
        fresh = self.file.with_name(self.file.name + ".new")
        try:
            fresh.write_text(json.dumps({"version": VERSION} | found, indent=1) + "\n")
            fresh.replace(self.file)
        except OSError as error:
            raise Problem(f"{self.file} can't be written: {error.strerror}.") from None

    def forget(self) -> None:
        """Take it away, where nothing was asked."""
        self.file.unlink(missing_ok=True)

    def key(self, what: str) -> str:
        """The Idempotency-Key of one create."""
        return f"{self.nonce}-{what}"


def reopened(out: Path, identity: Mapping[str, str], *, fresh: bool) -> Sidecar:
    """The sidecar of this OUT, or a new one that is not saved yet.

    With `fresh` always a new one, which knows the batches that it leaves behind. Raises Problem if OUT or OUT.part is
    there from something else, or belongs to another command by which something was asked: which of the identity's
    names differ.
    """
    file = beside(out)
    new = Sidecar(file, dict(identity), uuid.uuid4().hex)
    if fresh:
        with suppress(Problem):  # one that can't be read is nobody's
            if (old := _read(file)) and not old.ended:
                new.left_behind = [part.batch for part in old.parts if part.batch]
        return new
    found = _read(file)
    if found is None:
        part = part_of(out)
        for there in [out] if out.exists() else [part] if part.exists() and part.stat().st_size else []:
            raise Problem(f"{there} is there, and not from this command: choose another, or say --fresh to replace it.")
        return new
    differ = sorted(name for name in {*identity, *found.identity} if identity.get(name) != found.identity.get(name))
    if differ and any(part.batch for part in found.parts):
        what = ", ".join(differ)
        raise Problem(f"{out} was begun with another {what}: go on as it began, or say --fresh to start over.")
    return new if differ else found


def _read(file: Path) -> Sidecar | None:
    try:
        found = json.loads(file.read_text())
        if found.pop("version") != VERSION:
            raise ValueError
        return msgspec.convert(found | {"file": str(file)}, Sidecar, dec_hook=lambda kind, value: kind(value))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Problem(f"{file} can't be read: {error.strerror}.") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Problem(f"{file} can't be understood: say --fresh to start over.") from None


class Growing:
    """OUT.part while it grows: whole pages, one writer."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def cut(self, whole_bytes: int) -> bool:
        """Go on behind so many bytes: what follows them is half a page that a killed command left.

        False, and nothing is in it any more, if it is shorter: somebody took it away.
        """
        whole = os.fstat(self._file.fileno()).st_size >= whole_bytes
        self._file.truncate(whole_bytes if whole else 0)
        self._file.seek(0, os.SEEK_END)
        return whole

    def add(self, page: bytes) -> int:
        """Write a page; how long the file is now. Raises Problem."""
        try:
            self._file.write(page)
            self._file.flush()
        except OSError as error:
            raise Problem(f"{self._file.name} can't be written: {error.strerror}.") from None
        return self._file.tell()


def _locked(file: Path) -> BinaryIO:
    """The file that has this name, and its lock: one that lost its name before it was locked is another's, and over."""
    while True:
        try:
            opened = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")
        except OSError as error:
            raise Problem(f"{file} can't be written: {error.strerror}.") from None
        with ExitStack() as unless_ours:
            unless_ours.callback(opened.close)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Problem(f"Another command writes {file}: let it end, or stop it.") from None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(opened.fileno()), os.stat(file)):
                    unless_ours.pop_all()
                    return opened


@contextmanager
def growing(out: Path) -> Iterator[Growing]:
    """OUT.part for its only writer, who then reads the sidecar; the kernel lets go however the command ends.

    One that holds nothing is not left behind.
    """
    file = part_of(out)
    with _locked(file) as opened:
        opened.seek(0, os.SEEK_END)
        try:
            yield Growing(opened)
        finally:
            if not os.fstat(opened.fileno()).st_size:
                file.unlink(missing_ok=True)
