"""An environment with vLLM for CUDA, from a folder of wheels or from an index, for engines to run in.

Penstock goes into it too, without what it needs elsewhere: its plugin and the direct handler then run in the engine, as
they do where `penstock[engine-cuda]` is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench import engine_python

ROOT: Final = Path(__file__).parents[3]
_PACKAGES: Final = "import sysconfig; print(sysconfig.get_path('purelib'))"


class NotSetUp(RuntimeError):
    """It could not be made; the text says why, in one line."""


def environment(wheels: str, folder: Path, requirement: str = "vllm") -> Path:
    """Its interpreter, in this folder. It sees the packages of the one that is named for engines, if one is."""
    python, source = folder / "bin" / "python", _source(wheels)
    _run(engine_python.python(), "-m", "venv", str(folder))
    if "PENSTOCK_ENGINE_PYTHON" in os.environ:
        # Not --system-site-packages: what is named may be an environment itself, which that would pass over.
        seen = _run(engine_python.python(), "-c", _PACKAGES).strip()
        Path(_run(str(python), "-c", _PACKAGES).strip(), "named.pth").write_text(f"{seen}\n")
    _run(str(python), "-m", "pip", "install", "--quiet", *source, requirement)
    with tempfile.TemporaryDirectory() as name:
        # Built here, where what builds it is installed.
        build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", name, str(ROOT))
        _run(sys.executable, "-m", "pip", *build)
        made = [str(wheel) for wheel in Path(name).glob("*.whl")]
        _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *made)
    return python


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
