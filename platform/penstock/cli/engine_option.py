"""The flag `--engine`: which engine profile answers, by its name."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from penstock.domain.engines.profiles import PROFILES, VLLM

DEFAULT: Final = VLLM.name


def known(name: str) -> str:
    """The name, if there is such a profile; raise BadParameter."""
    if name not in PROFILES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, PROFILES))}.")
    return name


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
