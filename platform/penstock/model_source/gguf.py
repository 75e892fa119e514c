"""A GGUF file, read as far as its head: whether it is one, whether it is whole, and what its model says of itself.

Source: github.com/ggml-org/ggml, docs/gguf.md, and ggml.c's `type_traits` for the sizes. llama.cpp itself says of a
file that is cut only that it failed to load, after the engine was started.
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.model_source.no_model import NoModel

SUFFIX: Final = ".gguf"
_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_LEAST_BYTES: Final = 24
_LFS: Final = b"version https://git-lfs"
_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of values, as `struct` spells them."""
_STRING, _ARRAY = 8, 9
_MOST_HEAD_BYTES: Final = 256 * 1024 * 1024
_MOST_VALUES: Final = 4 * 1024 * 1024
"""Of facts, of tensors, and of texts in one list: the largest vocabularies have some hundred thousand."""
_MOST_DIMENSIONS: Final = 4
TENSOR_TYPES: Final = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17),
}  # fmt: skip
"""Of each type of tensor: how many values a block has, and how many bytes. One that is not here counts as one byte."""
_PART: Final = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True)
class GgufHead:
    """What a GGUF says of its model."""

    architecture: str
    context_tokens: int | None
    """The longest text that it was trained for; None if it does not say."""
    parts: int
    """How many files it is."""


class _DamagedError(Exception):
    """The head can't be read to its end."""


class _Reader:
    """Reads values in their order; whatever leads out of the file is damage."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.at = len(_MAGIC)

    def number(self, form: str) -> Any:
        try:
            found = struct.unpack_from("<" + form, self._data, self.at)[0]
        except struct.error:
            raise _DamagedError from None
        self.at += struct.calcsize("<" + form)
        return found

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > min(len(self._data), _MOST_HEAD_BYTES):
            raise _DamagedError

    def text(self) -> str:
        length = self.number("Q")
        start = self.at
        self.skip(length)
        return self._data[start : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """One value; None for an array, which is only passed."""
        if kind == _STRING:
            return self.text()
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise _DamagedError
        inner, count = self.number("I"), self.number("Q")
        if inner in _NUMBERS:
            self.skip(count * struct.calcsize("<" + _NUMBERS[inner]))
        elif inner == _STRING and count <= _MOST_VALUES:
            for _ in range(count):  # ends at the file's end at the latest: each has eight bytes at least
                self.skip(self.number("Q"))
        else:
            raise _DamagedError
        return None


def read(file: Path) -> GgufHead:
    """Read the head of a GGUF, and those of its other parts if it is several files; milliseconds.

    Raises NoModel if one of them is no GGUF, is not there, or is shorter than its head says.
    """
    named = _PART.search(file.name)
    if not named:
        return _read(file, 1)
    parts = int(named[2])
    stem = file.name[: named.start()]
    for number in range(1, parts + 1):
        part = file.with_name(f"{stem}-{number:05d}-of-{named[2]}.gguf")
        if not part.exists():
            raise NoModel(f"{file} is part {int(named[1])} of {parts}, and {part.name} is not beside it.")
        _read(part, parts)
    return _read(file.with_name(f"{stem}-00001-of-{named[2]}.gguf"), parts)


def _read(file: Path, parts: int) -> GgufHead:
    try:
        if file.exists() and not file.is_file():
            raise NoModel(f"{file} is no GGUF: it is {'a folder' if file.is_dir() else 'a pipe or a device'}.")
        with file.open("rb") as opened:
            if file.stat().st_size < _LEAST_BYTES:
                raise NoModel(f"{file} is no GGUF: it has {file.stat().st_size} bytes.")
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _of(file, data, parts)
    except OSError as error:
        raise NoModel(f"{file} can't be read: {error.strerror}.") from None


def _of(file: Path, data: mmap.mmap, parts: int) -> GgufHead:
    if data[: len(_LFS)] == _LFS:
        raise NoModel(f"{file} is a pointer of Git LFS, not the weights: say `git lfs pull` there.")
    if data[: len(_MAGIC)] != _MAGIC:
        raise NoModel(f"{file} is no GGUF: it does not begin with GGUF. llama.cpp reads no other files.")
    reader = _Reader(data)
    version = reader.number("I")
    if version not in _VERSIONS:
        raise NoModel(f"{file} is a GGUF of version {version}; llama.cpp reads {' and '.join(map(str, _VERSIONS))}.")
    try:
        tensors, count = reader.number("Q"), reader.number("Q")
        if max(tensors, count) > _MOST_VALUES:
            raise _DamagedError
        about: dict[str, Any] = {}
        for _ in range(count):
            name = reader.text()
            about[name] = reader.value(reader.number("I"))
        end = _end(reader, tensors, about.get("general.alignment"))
    except _DamagedError:
        raise NoModel(f"{file} is cut off or damaged: its head has no end. Copy it again.") from None
    if len(data) < end:
        raise NoModel(f"{file} is cut off: it has {len(data)} bytes, and its head says {end}. Copy it again.")
    architecture = str(about.get("general.architecture") or "")
    context = about.get(f"{architecture}.context_length")
    return GgufHead(architecture, context if isinstance(context, int) and context > 0 else None, parts)


def _end(reader: _Reader, tensors: int, alignment: object) -> int:
    """How many bytes a file has whose head lists so many tensors: the data begins after it, aligned."""
    longest = 0
    for _ in range(tensors):
        reader.text()
        dimensions = reader.number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise _DamagedError
        values = 1
        for _ in range(dimensions):
            values *= reader.number("Q")
        block, block_bytes = TENSOR_TYPES.get(reader.number("I"), (values or 1, 1))
        longest = max(longest, reader.number("Q") + values // block * block_bytes)
    step = alignment if isinstance(alignment, int) and alignment > 0 else 32
    begin = (reader.at + step - 1) // step * step
    return begin + longest if tensors else reader.at
