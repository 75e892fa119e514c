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
        lock()
    elif not STAMP.exists() or STAMP.read_text() != LOCK.read_text():
        install.say("setting up .venv-fuzz")
        python = str(VENV / "bin" / "python")
        settings = install.pip_settings()
        install.uv("venv", "--quiet", "--clear", "--python", str(install.PYTHON), str(VENV))
        install.uv("pip", "install", "--quiet", "--python", python, "--no-deps", "--requirement", str(LOCK),
                   settings=settings)  # fmt: skip
        STAMP.write_text(LOCK.read_text())


def lock() -> None:
    """Write fuzz.txt anew from fuzz.in; a version stays as it is unless something asks for another."""
    install.uv("pip", "compile", str(LOCK.with_suffix(".in")), "--output-file", str(LOCK), "--python-version", "3.11",
               "--python-platform", "x86_64-manylinux_2_28", "--no-header", "--no-annotate", "--quiet",
               settings=install.pip_settings())  # fmt: skip
    install.say(f"wrote {LOCK.relative_to(install.ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
