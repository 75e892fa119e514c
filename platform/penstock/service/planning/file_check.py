"""File checks: what validation would find in a file, said by the same scan, of a file that no server has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from penstock.domain.work.batch import LineError
from penstock.service.planning.line_models import EVERY, LineModels
from penstock.service.planning.scan import scan
from penstock.settings import Settings


@dataclass(frozen=True)
class FileCheck:
    """What was found. `errors` are the first of bad lines, by line; or what is wrong with the whole file, line None."""

    good_lines: int
    bad_lines: int
    models: list[str]
    errors: list[LineError]

    @property
    def whole(self) -> bool:
        """Whether the file is wrong as a whole."""
        return any(error.line is None for error in self.errors)


@dataclass
class _Listed:
    most: int
    count: int = 0
    errors: list[LineError] = field(default_factory=list)

    def add(self, error: LineError, custom_id: str | None) -> None:
        self.count += 1
        if len(self.errors) < self.most:
            self.errors.append(error)


def check(path: Path, endpoint: str, default_model: str | None, most: int, settings: Settings) -> FileCheck:
    """Check a file of lines that ask this endpoint; at most `most` bad lines are listed, all are counted.

    Which models there are is not known here. A server may refuse it for what its tenant has open already.
    """
    bad = _Listed(most)
    found = scan(path, endpoint, {}, LineModels(EVERY, default=default_model), settings, dedup=False, skipped=bad)
    errors = found.errors or sorted(bad.errors, key=lambda error: error.line or 0)
    return FileCheck(len(found.numbers), bad.count, sorted(one.asked for one in found.models), errors)
