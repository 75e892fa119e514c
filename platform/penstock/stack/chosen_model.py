"""The chosen model: what `--model` names, and where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from penstock.domain.engines.profile import EngineProfile, EngineSource
from penstock.domain.engines.profiles import VLLM
from penstock.stack import tiny_model
from penstock.stack.problem import Problem

TINY: Final = "tiny"


def parse_model(text: str | None, profile: EngineProfile = VLLM) -> tuple[str, str | None]:
    """Read `[NAME=]DIR_OR_HF_ID`; a folder's own name is the name, else the Hugging Face id. Of an engine elsewhere
    it is `NAME=URL`. Raises Problem.
    """
    if profile.is_elsewhere:
        name, _, source = (text or "").partition("=")
        if not source.startswith(("http://", "https://")) or not name:
            message = (
                f"--engine {profile.name} leads to an engine that runs already: say --model NAME=http://HOST:PORT."
            )
            raise Problem(message)
        return name, source.rstrip("/")
    if text is None or text in tiny_model.MODELS:
        return text or TINY, None
    name, equals, source = text.partition("=")
    if not equals or Path(text).is_dir():
        name, source = "", text
    if not source:
        raise Problem(f"--model {text} names no source: say NAME=FOLDER_OR_HUGGING_FACE_ID.")
    path = Path(source).expanduser()
    if path.exists() and (path.is_dir() or profile.source is EngineSource.GGUF):
        path = path.resolve()
        return name or (path.name if path.is_dir() else path.stem), str(path)
    if source.startswith((".", "/", "~")):
        what = "GGUF file" if profile.source is EngineSource.GGUF else "model folder"
        raise Problem(f"There is no {what} {source}: give a {what.partition(' ')[2]} or a Hugging Face id.")
    return name or source, source
