"""The key of an engine elsewhere: from the environment, or from a file that is read again when it changes."""

from __future__ import annotations

from pathlib import Path


class NoKey(Exception):
    """There is no key where one should be."""


class EngineKey:
    """A key as it stands now. It is in no log, and in nobody's arguments."""

    def __init__(self, text: str | None = None, file: Path | None = None) -> None:
        self._text = text
        self._file = file
        self._read_at = -1
        self._read = ""

    def header(self) -> dict[str, str]:
        """What a request says of it; nothing without a key. Raises NoKey if the file can't be read or is empty."""
        key = self._of_file(self._file) if self._file else self._text
        return {"authorization": f"Bearer {key}"} if key else {}

    def _of_file(self, file: Path) -> str:
        try:
            changed_at = file.stat().st_mtime_ns
            if changed_at != self._read_at:
                self._read, self._read_at = file.read_text().strip(), changed_at
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise NoKey(f"the key file {file} can't be read: {why}") from None
        if not self._read or not self._read.isascii() or not self._read.isprintable():
            raise NoKey(f"the key file {file} holds no key: one line of printable characters")
        return self._read
