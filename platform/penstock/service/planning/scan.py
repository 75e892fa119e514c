"""Scans: one streaming pass over a batch's input that finds every bad line, and what the plan needs of the good ones.

It takes some 60 bytes of memory a line, and 4 more for each beginning of its prompt (formats/prefix.py): two for a
line of 500 bytes, 24 at most.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.domain.fleet.model import ModelFacts
from penstock.domain.work.batch import LineError
from penstock.formats import encoding, line_index
from penstock.formats import input as lines
from penstock.formats.canonical import fingerprint
from penstock.formats.input import Checked
from penstock.formats.line_index import INPUT_MARK_BYTES, INPUT_MARK_LINES, Marks
from penstock.formats.prefix import beginnings
from penstock.service.ensembles.routing import Router, Unroutable
from penstock.service.estimates import token_heuristic
from penstock.service.models.pins import LineModel
from penstock.service.planning.line_models import LineModels
from penstock.service.planning.order import Numbers, leaders
from penstock.settings import Settings


class BadLines(Protocol):
    """Where bad lines go that are no faults of the whole file."""

    count: int

    def add(self, error: LineError, custom_id: str | None) -> None:
        """Take one line, which the error names."""


@dataclass
class Scan:
    """What the pass found: for each good line its place and weight, and every fault (the first ones listed)."""

    numbers: array[int] = field(default_factory=lambda: array("I"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("I"))
    tokens: array[int] = field(default_factory=lambda: array("I"))
    model_of: array[int] = field(default_factory=lambda: array("H"))
    unnamed: array[int] = field(default_factory=lambda: array("B"))
    """1 for lines that name no model."""
    default_model: str | None = None
    """What those ask."""
    longest: array[int] = field(default_factory=lambda: array("I"))
    """How many tokens each answer may have, to order lines by."""
    beginnings: array[int] = field(default_factory=lambda: array("I"))
    beginning_counts: array[int] = field(default_factory=lambda: array("B"))
    """Hashes of the beginnings of all prompts in one row, and how many each line has."""
    prints: array[int] = field(default_factory=lambda: array("Q"))
    """Fingerprints, cut to 8 bytes, of lines whose answer may stand for equal lines; 0: none."""
    leaders: Numbers = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """For each line the first that equals it, which is asked in its place: itself mostly."""
    models: list[LineModel] = field(default_factory=list)
    hashes: bytearray = field(default_factory=bytearray)
    skipped_numbers: array[int] = field(default_factory=lambda: array("I"))
    skipped_hashes: bytearray = field(default_factory=bytearray)
    """The same of bad lines that have a custom_id."""
    marks: Marks = field(default_factory=lambda: Marks(INPUT_MARK_LINES, INPUT_MARK_BYTES))
    index: bytes = b""
    """Where each line stands, and each custom_id: the same whichever batch reads the file."""
    errors: list[LineError] = field(default_factory=list)
    error_count: int = 0

    def refuse(self, error: LineError, most_listed: int) -> None:
        """Count a fault, and list it if it is among the first by line."""
        self.error_count += 1
        if len(self.errors) < most_listed:
            self.errors.append(error)

    def keep(self, kept: NDArray[np.bool_]) -> None:
        """Forget the other lines."""
        counts = np.frombuffer(self.beginning_counts, dtype=np.uint8)
        self.beginnings = _kept(self.beginnings, np.repeat(kept, counts))
        for name in _PER_LINE:
            setattr(self, name, _kept(getattr(self, name), kept))
        used, places = np.unique(np.frombuffer(self.model_of, dtype=np.uint16), return_inverse=True)
        self.models = [self.models[model] for model in used.tolist()]
        self.model_of = array("H", places.astype(np.uint16).tobytes())


_PER_LINE: Final = (
    "numbers", "offsets", "lengths", "tokens", "model_of", "unnamed", "longest", "beginning_counts", "prints",
)  # fmt: skip


def _kept(values: array[int], kept: NDArray[np.bool_]) -> array[int]:
    return array(values.typecode, np.frombuffer(values, dtype=values.typecode)[kept].tobytes())


@dataclass(frozen=True)
class _Pass:
    """What one pass reads, by which rules, and what it found so far."""

    file: BinaryIO
    found: Scan
    endpoint: str
    facts: Mapping[str, ModelFacts]
    models: LineModels
    settings: Settings
    dedup: bool
    skipped: BadLines | None
    router: Router

    def refuse(self, error: LineError, custom_id: str | None = None) -> None:
        """Skip a line, or count it as a fault of the batch."""
        if self.skipped is None or error.line is None:
            self.found.refuse(error, self.settings.max_errors_listed)
        else:
            self.skipped.add(error, custom_id)

    @property
    def met(self) -> int:
        """Lines with content so far, good or bad."""
        return len(self.found.numbers) + self.found.error_count + (self.skipped.count if self.skipped else 0)


def scan(
    path: Path,
    endpoint: str,
    facts: Mapping[str, ModelFacts],
    models: LineModels,
    settings: Settings,
    *,
    dedup: bool = True,
    skipped: BadLines | None = None,
) -> Scan:
    """Read the input once and check each line by itself, then all custom_ids against each other.

    `facts` is what is known about the lines of models, for estimates. `dedup`: equal lines may share an answer.
    Bad lines go to `skipped`, if there is such a place, and are no faults then; what is wrong with the whole file is.
    """
    found = Scan(default_model=models.default)
    with path.open("rb", buffering=1 << 20) as file:
        router = Router(settings.bytes_per_token)
        reading = _Pass(file, found, endpoint, facts, models, settings, dedup, skipped, router)
        if fault := encoding.fault(os.pread(file.fileno(), encoding.HEAD_BYTES, 0)):
            reading.refuse(LineError("invalid_encoding", fault))
        if skipped is None or not found.error_count:
            _check_lines(reading)
        if not found.error_count:
            found.index = _index(found, os.fstat(file.fileno()).st_size)
        if skipped is None or not found.error_count:
            _check_custom_ids(reading)
    found.hashes.clear()
    _let_follow(found)
    if not reading.met:
        reading.refuse(LineError("empty_file", "The file holds no requests."))
    return found


def _check_lines(reading: _Pass) -> None:
    file, found, settings = reading.file, reading.found, reading.settings
    model_index: dict[LineModel, int] = {}
    number = offset = blank = 0
    while raw := file.readline(settings.max_line_bytes + 2):
        number += 1
        start, offset = offset, offset + len(raw)
        found.marks.line(number, start)
        whole = raw.endswith(b"\n") or len(raw) < settings.max_line_bytes + 2
        too_long = not whole or len(raw.rstrip(b"\r\n")) > settings.max_line_bytes
        if too_long:
            offset += 0 if raw.endswith(b"\n") else _skip_line(file)
        line = None if too_long else lines.tidy(raw, number)
        blank += line == b""
        if (blank - 1 if line == b"" else reading.met) >= settings.max_file_lines:
            reading.refuse(LineError("too_many_tasks", f"The file holds more than {settings.max_file_lines} lines."))
            return
        if line is None:
            reading.refuse(LineError("invalid_request", lines.too_long(settings.max_line_bytes), None, number))
            continue
        if not line:
            continue
        taken = _check(reading, line, number, model_index)
        if isinstance(taken, LineError):
            custom_id = lines.told_custom_id(line, settings.max_custom_id_bytes)
            reading.refuse(taken, custom_id)
            if reading.skipped is not None and custom_id is not None:
                found.skipped_numbers.append(number)
                found.skipped_hashes += line_index.id_hash(custom_id)
            continue
        checked, model = taken
        found.numbers.append(number)
        found.unnamed.append(not checked.named)
        found.offsets.append(start)
        found.lengths.append(len(raw))
        known = reading.facts.get(reading.models.target(model.names[0]).queue)
        found.tokens.append(token_heuristic.tokens(checked, len(line), reading.endpoint, known, settings))
        found.longest.append(token_heuristic.longest(checked, reading.endpoint, known, settings))
        hashes = beginnings(checked.prompt)
        found.beginnings.extend(hashes)
        found.beginning_counts.append(len(hashes))
        same = fingerprint(reading.endpoint, checked.body) if reading.dedup else None
        found.prints.append(int.from_bytes(same[:8]) if same else 0)
        found.model_of.append(model_index.setdefault(model, len(model_index)))
        found.hashes += line_index.id_hash(checked.custom_id)
    found.models = list(model_index)


def _check(
    reading: _Pass, line: bytes, number: int, models: Mapping[LineModel, int]
) -> tuple[Checked, LineModel] | LineError:
    """The line by itself, and its model; `models` are those of the lines before. Of an ensemble it is a member's."""
    settings = reading.settings
    checked = lines.check(line, number, reading.endpoint, settings.max_custom_id_bytes, reading.models.default)
    if isinstance(checked, LineError):
        return checked
    model = LineModel(checked.model)
    if ensemble := reading.models.ensemble(checked.model):
        try:
            routed = reading.router.routed(ensemble, reading.endpoint, checked.body)
        except Unroutable as error:
            return LineError(error.code, error.message, "body", number)
        model = LineModel(checked.model, routed.members)
        if routed.body is not checked.body:
            checked = lines.check_body(checked, reading.endpoint, routed.body, number)
            if isinstance(checked, LineError):
                return checked
    if model in models:
        return checked, model
    if fault := reading.models.fault(model):
        return LineError(*fault, "body.model", number)
    if len(models) >= settings.max_models_per_batch:
        message = f"The file names more than {settings.max_models_per_batch} models."
        return LineError("invalid_request", message, "body.model", number)
    return checked, model


def _let_follow(found: Scan) -> None:
    """A line that only follows an equal one costs next to nothing."""
    found.leaders = leaders(np.frombuffer(found.prints, dtype=np.uint64))
    found.prints = array("Q")
    tokens = np.frombuffer(found.tokens, dtype=np.uint32)
    tokens[found.leaders != np.arange(len(tokens))] = 1


def _index(found: Scan, size_bytes: int) -> bytes:
    hashes, numbers = found.hashes + found.skipped_hashes, found.numbers + found.skipped_numbers
    found.skipped_hashes, found.skipped_numbers = bytearray(), array("I")
    return found.marks.blob(size_bytes, ids=line_index.ids_of(hashes, numbers))


def _skip_line(file: BinaryIO) -> int:
    skipped = 0
    while piece := file.readline(1 << 20):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _check_custom_ids(reading: _Pass) -> None:
    """Find equal hashes by sorting, and confirm each on the bytes of the two lines; the first of equal ones is good."""
    file, found = reading.file, reading.found
    if len(found.numbers) < 2:
        return
    halves = np.frombuffer(found.hashes, dtype=">u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal hashes stay in file order
    ordered = halves[order]
    again = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1)) + 1
    if not len(again):
        return
    begins = np.arange(len(order))
    begins[again] = 0
    firsts = order[np.maximum.accumulate(begins)[again]]
    by_line = np.argsort(order[again])
    kept = np.ones(len(order), dtype=np.bool_)
    for later, first in zip(order[again][by_line], firsts[by_line], strict=True):
        custom_id = _custom_id(file, found, later)
        if custom_id == _custom_id(file, found, first):
            message = (
                f"custom_id {custom_id[:64]!r} is on line {found.numbers[first]} and on line {found.numbers[later]}."
            )
            error = LineError("duplicate_custom_id", message, "custom_id", found.numbers[later])
            reading.refuse(error, custom_id)
            kept[later] = False
    if reading.skipped is not None:
        found.keep(kept)


def _custom_id(file: BinaryIO, found: Scan, index: int) -> str:
    return lines.custom_id_of(line_at(file, found, index))


def line_at(file: BinaryIO, found: Scan, index: int) -> bytes:
    """The tidy bytes of a good line, wherever the file stands."""
    raw = os.pread(file.fileno(), found.lengths[index], found.offsets[index])
    return lines.tidy(raw, found.numbers[index])


def asked_line(file: BinaryIO, found: Scan, index: int) -> bytes:
    """The same, with the model that it asks if it names none."""
    line = line_at(file, found, index)
    return lines.changed(line, {"model": found.default_model}) if found.unnamed[index] else line
