"""Engine profiles on the command line: the flag `--engine`, and what an engine lacks in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import typer

from penstock.domain.engines.profile import LACKS
from penstock.domain.engines.profiles import PROFILES, VLLM

DEFAULT: Final = VLLM.name


def known(name: str) -> str:
    """The name, if there is such a profile; raise BadParameter."""
    if name not in PROFILES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, PROFILES))}.")
    return name


def lacks(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Rows of a table: what an engine can't do, and how that is done without."""
    known_ones = {str(lack): words for lack, words in LACKS.items()}
    for name in names:
        yield f"no {name}", known_ones.get(name, "")


Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help=f"What answers: {', '.join(PROFILES)}.",
        callback=known,
        autocompletion=lambda: list(PROFILES),
    ),
]
