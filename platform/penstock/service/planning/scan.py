"""Scans: one streaming pass over a batch's input that finds every bad line, and what the plan needs of the good ones.

It takes some 60 bytes of memory a line, and 4 more for each beginning of its prompt (formats/prefix.py): two for a
line of 500 bytes, 24 at most.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from penstock.domain.fleet.model import ModelFacts
from penstock.domain.work.batch import LineError
from penstock.formats import encoding
from penstock.formats import input as lines
from penstock.formats.canonical import fingerprint
from penstock.formats.prefix import beginnings
from penstock.service.estimates import token_heuristic
from penstock.service.planning.order import Numbers, leaders
from penstock.settings import Settings
from penstock.settings.limits import LimitSettings


@dataclass
class Scan:
    """What the pass found: for each good line its place and weight, and every fault (the first ones listed)."""

    numbers: array[int] = field(default_factory=lambda: array("I"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("I"))
    tokens: array[int] = field(default_factory=lambda: array("I"))
    model_of: array[int] = field(default_factory=lambda: array("H"))
    longest: array[int] = field(default_factory=lambda: array("I"))
    """How many tokens each answer may have, to order lines by."""
    beginnings: array[int] = field(default_factory=lambda: array("I"))
    beginning_counts: array[int] = field(default_factory=lambda: array("B"))
    """Hashes of the beginnings of all prompts in one row, and how many each line has."""
    prints: array[int] = field(default_factory=lambda: array("Q"))
    """Fingerprints, cut to 8 bytes, of lines whose answer may stand for equal lines; 0: none."""
    leaders: Numbers = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """For each line the first that equals it, which is asked in its place: itself mostly."""
    models: list[str] = field(default_factory=list)
    hashes: bytearray = field(default_factory=bytearray)
    errors: list[LineError] = field(default_factory=list)
    error_count: int = 0

    def refuse(self, error: LineError, most_listed: int) -> None:
        """Count a fault, and list it if it is among the first by line."""
        self.error_count += 1
        if len(self.errors) < most_listed:
            self.errors.append(error)


def scan(path: Path, endpoint: str, facts: Mapping[str, ModelFacts], settings: Settings, dedup: bool = True) -> Scan:
    """Read the input once and check each line by itself, then all custom_ids against each other.

    `facts` is what is known about the lines of models, for estimates. `dedup`: equal lines may share an answer.
    """
    found = Scan()
    with path.open("rb", buffering=1 << 20) as file:
        if fault := encoding.fault(os.pread(file.fileno(), encoding.HEAD_BYTES, 0)):
            found.refuse(LineError("invalid_encoding", fault), settings.max_errors_listed)
        _check_lines(file, found, endpoint, facts, settings, dedup)
        _check_custom_ids(file, found, settings)
    found.hashes.clear()
    _let_follow(found)
    if not found.numbers and not found.error_count:
        found.refuse(LineError("empty_file", "The file holds no requests."), settings.max_errors_listed)
    return found


def _check_lines(
    file: BinaryIO, found: Scan, endpoint: str, facts: Mapping[str, ModelFacts], settings: Settings, dedup: bool
) -> None:
    model_index: dict[str, int] = {}
    number = offset = blank = 0
    while raw := file.readline(settings.max_line_bytes + 2):
        number += 1
        start, offset = offset, offset + len(raw)
        whole = raw.endswith(b"\n") or len(raw) < settings.max_line_bytes + 2
        if not whole or len(raw.rstrip(b"\r\n")) > settings.max_line_bytes:
            offset += 0 if raw.endswith(b"\n") else _skip_line(file)
            error = LineError("invalid_request", lines.too_long(settings.max_line_bytes), None, number)
            found.refuse(error, settings.max_errors_listed)
            continue
        line = lines.tidy(raw, number)
        blank += not line
        before = len(found.numbers) + found.error_count if line else blank - 1
        if before >= settings.max_file_lines:
            message = f"The file holds more than {settings.max_file_lines} lines."
            found.refuse(LineError("too_many_tasks", message), settings.max_errors_listed)
            return
        if not line:
            continue
        checked = lines.check(line, number, endpoint, settings.max_custom_id_bytes)
        if isinstance(checked, LineError):
            found.refuse(checked, settings.max_errors_listed)
            continue
        model = model_index.setdefault(checked.model, len(model_index))
        if model >= settings.max_models_per_batch:
            message = f"The file names more than {settings.max_models_per_batch} models."
            found.refuse(LineError("invalid_request", message, "body.model", number), settings.max_errors_listed)
            return
        found.numbers.append(number)
        found.offsets.append(start)
        found.lengths.append(len(raw))
        known = facts.get(checked.model)
        found.tokens.append(token_heuristic.tokens(checked, len(line), endpoint, known, settings))
        found.longest.append(token_heuristic.longest(checked, endpoint, known, settings))
        hashes = beginnings(checked.prompt)
        found.beginnings.extend(hashes)
        found.beginning_counts.append(len(hashes))
        same = fingerprint(endpoint, checked.body) if dedup else None
        found.prints.append(int.from_bytes(same[:8]) if same else 0)
        found.model_of.append(model)
        found.hashes += hashlib.blake2b(checked.custom_id.encode(), digest_size=16).digest()
    found.models = list(model_index)


def _let_follow(found: Scan) -> None:
    """A line that only follows an equal one costs next to nothing."""
    found.leaders = leaders(np.frombuffer(found.prints, dtype=np.uint64))
    found.prints = array("Q")
    tokens = np.frombuffer(found.tokens, dtype=np.uint32)
    tokens[found.leaders != np.arange(len(tokens))] = 1


def _skip_line(file: BinaryIO) -> int:
    skipped = 0
    while piece := file.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _check_custom_ids(file: BinaryIO, found: Scan, settings: LimitSettings) -> None:
    """Find equal hashes by sorting, and confirm each on the bytes of the two lines."""
    if len(found.numbers) < 2:
        return
    halves = np.frombuffer(found.hashes, dtype=">u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal hashes stay in file order
    ordered = halves[order]
    again = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1)) + 1
    if not len(again):
        return
    repeated = set(again.tolist())
    doubles = []
    for position in again.tolist():
        first = position
        while first in repeated:
            first -= 1
        doubles.append((int(order[position]), int(order[first])))
    for later, first in sorted(doubles):
        custom_id = _custom_id(file, found, later)
        if custom_id == _custom_id(file, found, first):
            message = (
                f"custom_id {custom_id[:64]!r} is on line {found.numbers[first]} and on line {found.numbers[later]}."
            )
            error = LineError("duplicate_custom_id", message, "custom_id", found.numbers[later])
            found.refuse(error, settings.max_errors_listed)


def _custom_id(file: BinaryIO, found: Scan, index: int) -> str:
    return lines.custom_id_of(line_at(file, found, index))


def line_at(file: BinaryIO, found: Scan, index: int) -> bytes:
    """The tidy bytes of a good line, wherever the file stands."""
    raw = os.pread(file.fileno(), found.lengths[index], found.offsets[index])
    return lines.tidy(raw, found.numbers[index])
