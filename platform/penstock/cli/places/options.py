"""Place options: the flags of `penstock run` and `penstock map` that say where lines are asked, and of which model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from penstock.cli import engine_option
from penstock.domain.engines.profile import EngineProfile
from penstock.domain.engines.profiles import PROFILES, REMOTE
from penstock.domain.work.lane import Lane
from penstock.stack.problem import Problem

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|NAME=FOLDER_OR_ID|tiny",
        help="What is asked: a folder or Hugging Face id that is started here (lines call it by its name), `tiny`, "
        "or with --server or --engine-url the name of a model there.",
    ),
]
EngineArg = Annotated[
    list[str] | None, typer.Option("--engine-arg", help="An argument for the engine that is started; repeatable.")
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask a Penstock that runs there; the key is PENSTOCK_API_KEY, or that of --data.",
    ),
]
EngineUrl = Annotated[
    str | None,
    typer.Option(
        "--engine-url",
        metavar="URL",
        help="Ask an OpenAI-compatible engine that runs there, from a platform that is started here; its key, if it "
        "wants one, is PENSTOCK_ENGINE_KEY, or in the file PENSTOCK_ENGINE_KEY_FILE.",
    ),
]
LaneName = Annotated[Lane, typer.Option("--lane", help="How urgent it is.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="PENSTOCK_DATA",
        help="The folder of the platform that is started, data/run unless told; with --server that of the key.",
    ),
]

DEFAULT_FOLDER: Final = Path("data/run")


@dataclass(frozen=True)
class PlaceOptions:
    """What the flags say."""

    model: str | None = None
    engine: str = engine_option.DEFAULT
    engine_args: tuple[str, ...] = ()
    server: str | None = None
    engine_url: str | None = None
    data: Path | None = None

    def check(self) -> None:
        """Raise Problem if they can't go together."""
        if self.server and self.engine_url:
            raise Problem("Say --server or --engine-url, not both.")
        if self.server or self.engine_url:
            where = "--server" if self.server else "--engine-url"
            starts = self.engine != engine_option.DEFAULT and not (
                self.engine_url and PROFILES[self.engine].is_elsewhere
            )
            if starts:
                raise Problem(f"--engine {self.engine} goes not with {where}: that says where an engine runs already.")
            if self.engine_args and self.server:
                raise Problem(f"--engine-arg is for an engine that is started here: it goes not with {where}.")
        elif PROFILES[self.engine].is_elsewhere:
            raise Problem(f"--engine {self.engine} leads to an engine that runs already: say where with --engine-url.")
        elif not self.model:
            raise Problem("Say --model: a folder, a Hugging Face id, or `tiny`; or ask elsewhere with --server URL.")

    def identity(self) -> dict[str, str]:
        """What a sidecar keeps of them, by flag: whose answers they are, and where their batches are.

        Not the engine's arguments, which one changes to go on after it ran out of memory. Raises nothing.
        """
        here = not self.server
        found = {
            "--model": self.model,
            "--server": self.server,
            "--engine-url": self.engine_url,
            "--engine": self.engine if here and not self.engine_url else None,
            "--data": str(self.folder.expanduser().resolve()) if here else None,
        }
        return {flag: _without_password(value) for flag, value in found.items() if value}

    @property
    def profile(self) -> EngineProfile:
        """Of the engine that answers, where that is not another platform's affair."""
        named = PROFILES[self.engine]
        return REMOTE if self.engine_url and not named.is_elsewhere else named

    @property
    def folder(self) -> Path:
        """The data folder of a platform that is started here."""
        return self.data or DEFAULT_FOLDER


def _without_password(value: str) -> str:
    """An address with a name and a password in it is kept as a digest."""
    return hashlib.sha256(value.encode()).hexdigest() if "@" in value and "://" in value else value
