"""Nouns: batches and jobs, which are alike but for their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request


@dataclass(frozen=True)
class Noun:
    """What a page is about."""

    one: str
    plural: str
    path: str
    """Below the console's, and below the API's `/v1`."""


BATCHES: Final = Noun("Batch", "Batches", "/batches")
JOBS: Final = Noun("Job", "Jobs", "/jobs")


async def _named(request: Request) -> Noun:
    return JOBS if f"{JOBS.path}" in request.scope["route"].path else BATCHES


Named = Annotated[Noun, Depends(_named)]
"""Which of them the address names."""
