"""The journal of the engines: how often each line was asked, whatever died meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Final

from faults.accepted import Accepted

_NOTED_CHARACTERS: Final = 80


def needed(accepted: Sequence[Accepted]) -> dict[str, int]:
    """How often engines have to be asked what was accepted, by the beginning of what they are asked."""
    return {noted(text): count for one in accepted for line in one.lines for text, count in line.questions.items()}


def asked(journal: Path, known: Container[str]) -> Counter[str]:
    """How often engines were asked each of these."""
    entries = (entry.split("\t", 2)[2] for entry in journal.read_text().splitlines()) if journal.exists() else ()
    return Counter(text for text in entries if text in known)


def noted(text: str) -> str:
    """What the journal has of it."""
    return " ".join(text[:_NOTED_CHARACTERS].splitlines()).replace("\t", " ")
