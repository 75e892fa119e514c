"""An environment with vLLM for CUDA, from a folder of wheels or from an index, for engines to run in.

Penstock goes into it too, without what it needs elsewhere: its plugin and the direct handler then run in the engine, as
they do where `penstock[engine-cuda]` is installed.

What it was made of is written beside it: whoever asks for something else gets another one, and whoever has another
Penstock gets that, without waiting for vLLM.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import engine_python, result

ROOT: Final = Path(__file__).parents[3]
_PACKAGES: Final = "import sysconfig; print(sysconfig.get_path('purelib'))"

_QUIETLY: Final = "--disable-pip-version-check"
"""That pip could be newer would be the last line of what it says."""
_INSTALL: Final = ("-m", "pip", "install", _QUIETLY, "--quiet")


class NotSetUp(RuntimeError):
    """It could not be made; the text says why, in one line."""


def ready(folder: Path) -> Path:
    """The file that is there once an environment is whole: what it was made of."""
    return folder / "ready"


def environment(wheels: str, folder: Path, requirement: str, say: Callable[[str], None]) -> Path:
    """Its interpreter, in this folder; made only as far as what is there was made of something else."""
    python, commit = folder / "bin" / "python", result.commit()
    asked = {"wheels": _named(wheels), "requirement": requirement, "named": os.environ.get("PENSTOCK_ENGINE_PYTHON")}
    made = _made(folder)
    if made == asked | {"penstock": commit} and not (commit or "-dirty").endswith("-dirty"):
        return python
    ready(folder).unlink(missing_ok=True)
    if made | {"penstock": None} != asked | {"penstock": None}:
        say(f"making an environment from {wheels}")
        _vllm(wheels, folder, requirement)
    _penstock(python)
    ready(folder).write_text(json.dumps(asked | {"penstock": commit}) + "\n")
    return python


def _made(folder: Path) -> dict[str, str | None]:
    """What it was made of; nothing if it is not whole."""
    try:
        made: dict[str, str | None] = json.loads(ready(folder).read_text())
    except (OSError, ValueError):
        return {}
    return made


def _named(wheels: str) -> str:
    """By its whole path, if it is a folder."""
    return str(Path(wheels).resolve()) if Path(wheels).is_dir() else wheels


def _vllm(wheels: str, folder: Path, requirement: str) -> None:
    """A new environment that has it. It sees the packages of the interpreter that is named for engines, if one is."""
    python, source = folder / "bin" / "python", _source(wheels)
    _run(engine_python.python(), "-m", "venv", "--clear", str(folder))
    if "PENSTOCK_ENGINE_PYTHON" in os.environ:
        # Not --system-site-packages: what is named may be an environment itself, which that would pass over.
        seen = _run(engine_python.python(), "-c", _PACKAGES).strip()
        Path(_run(str(python), "-c", _PACKAGES).strip(), "named.pth").write_text(f"{seen}\n")
    _run(str(python), *_INSTALL, *source, requirement)


def _penstock(python: Path) -> None:
    """Put this Penstock into it."""
    with tempfile.TemporaryDirectory() as name:
        # Built here, where what builds it is installed.
        build = ("wheel", _QUIETLY, "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", name, str(ROOT))
        _run(sys.executable, "-m", "pip", *build)
        made = [str(wheel) for wheel in Path(name).glob("*.whl")]
        _run(str(python), *_INSTALL, "--no-deps", "--no-index", "--force-reinstall", *made)


def _source(wheels: str) -> list[str]:
    """Where pip finds it all."""
    if Path(wheels).is_dir():
        return ["--no-index", "--find-links", wheels]
    if "://" in wheels:
        return ["--index-url", wheels]
    raise NotSetUp(f"{wheels} is neither a folder of wheels nor an index")


def _run(*command: str) -> str:
    """What it prints; raises NotSetUp with the last line of its complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotSetUp(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise NotSetUp(f"{' '.join(command[1:4])}: {said[-1]}")
    return done.stdout
