"""Set up `.venv-fuzz`: what `make fuzz-api` asks the API with, apart from what everybody installs.

Standard library only; run by `make fuzz-api` after `make install`, whose uv and whose way to pip's settings it takes.
"""

from __future__ import annotations

import sys

import install

VENV = install.ROOT / ".venv-fuzz"
LOCK = install.ROOT / "requirements" / "fuzz.txt"
STAMP = VENV / ".penstock-installed"


def main(arguments: list[str]) -> None:
    """Bring the environment to what its lock says, or write the lock anew."""
    if arguments == ["lock"]:
        install.fetch_uv()
        install.compile_lock(LOCK.with_suffix(".in"), LOCK, settings=install.pip_settings())
    elif not STAMP.exists() or STAMP.read_text() != LOCK.read_text():
        install.say("setting up .venv-fuzz")
        python = str(VENV / "bin" / "python")
        settings = install.pip_settings()
        install.uv("venv", "--quiet", "--clear", "--python", str(install.PYTHON), str(VENV))
        install.uv("pip", "install", "--quiet", "--python", python, "--no-deps", "--requirement", str(LOCK),
                   settings=settings)  # fmt: skip
        STAMP.write_text(LOCK.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
