"""The definition of a version that is on this machine, or is started here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from penstock.domain.models.version import Definition, without_secrets


def defined_here(source: str, engine: str, arguments: Sequence[str]) -> Definition:
    """A folder or file counts by its whole path, so that it is the same from wherever somebody names it."""
    place = str(Path(source).resolve()) if os.path.exists(source) else source
    return Definition(place, engine, without_secrets(tuple(arguments)))
