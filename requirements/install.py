"""Set up `.venv`: the locked requirements and the project itself, editable. Quick when nothing has changed.

Standard library only; run by `make install`. The lock is for Python 3.11 on Linux x86-64 and holds no URLs:
where packages come from is pip's own configuration, which uv does not read, so it is handed over as flags.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements" / "lock.txt"
STAMP = VENV / ".penstock-installed"
UV = "uv==0.13.9"
NEEDED_BYTES = 6 * 1024**3


def main(arguments: list[str]) -> None:
    """Check the machine, then bring `.venv` to what the lock and pyproject.toml say."""
    check_machine()
    if arguments == ["lock"]:
        fetch_uv()
        lock()
        return
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        say("nothing to do: .venv is what the lock says")
        return
    begin = time.monotonic()
    check_space()
    fetch_uv()
    install_lock()
    install_project()
    STAMP.write_text(wanted)
    say(f"done in {time.monotonic() - begin:.0f} s; the command is .venv/bin/penstock")


def check_machine() -> None:
    """Stop with one line if this machine can't run what the lock holds."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        here = f"{platform.system()} {platform.machine()}"
        fail(f"this is {here}, the lock is for Linux x86_64: use such a machine.")
    if sys.version_info[:2] != (3, 11):
        here = platform.python_version()
        fail(f"this is Python {here}, the lock is for 3.11: run `make PYTHON=python3.11`.")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        fail(f"Python has no {error.name}: install it, e.g. `apt-get install python3.11-venv`.")


def check_space() -> None:
    """Stop with one line if the disk is too full for the environment."""
    free = shutil.disk_usage(ROOT).free
    if not (VENV / "lib" / "python3.11" / "site-packages" / "torch").is_dir() and free < NEEDED_BYTES:
        free_gib, needed_gib = free / 1024**3, NEEDED_BYTES / 1024**3
        fail(f"{free_gib:.1f} GiB are free here, the setup needs {needed_gib:.0f}: make room.")


def fingerprint() -> str:
    """A hash of everything that decides what is installed, and of where."""
    parts = [LOCK, ROOT / "pyproject.toml", Path(__file__)]
    digest = hashlib.sha256(f"{ROOT} {platform.python_version()}".encode())
    for part in parts:
        digest.update(part.read_bytes())
    return digest.hexdigest()


def fetch_uv() -> None:
    """Make the environment and put the pinned uv into it."""
    if not PYTHON.exists():
        say("making .venv")
        run([sys.executable, "-m", "venv", str(VENV)])
    if uv_version() == UV.partition("==")[2]:
        return
    say(f"fetching {UV} with pip")
    run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV])


def uv_version() -> str | None:
    """The version of the uv in the environment, if there is one."""
    program = VENV / "bin" / "uv"
    if not program.exists():
        return None
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False).stdout
    return (said.split() + [""] * 2)[1]


def install_lock() -> None:
    """Install exactly the lock: no resolver, so that nothing built for CUDA slips in."""
    count = sum(1 for line in LOCK.read_text().splitlines() if line and not line.startswith("#"))
    say(f"installing {count} locked packages (3 GB; the first time they are downloaded)")
    settings = pip_settings()
    torch = [] if holds_torch(settings.get("find-links", [])) else ["--torch-backend=cpu"]
    uv("pip", "install", "--python", str(PYTHON), "--no-deps", *torch, "--requirement", str(LOCK),
       settings=settings)  # fmt: skip


def install_project() -> None:
    """Install the project itself, editable, with the build backend of the lock."""
    say("installing penstock, editable")
    uv("pip", "install", "--quiet", "--python", str(PYTHON), "--no-deps", "--no-build-isolation", "--offline",
       "--editable", str(ROOT))  # fmt: skip


def lock() -> None:
    """Write lock.txt anew from direct.in; a version stays as it is unless something asks for another."""
    say("resolving requirements/direct.in")
    settings = pip_settings()
    torch = [] if holds_torch(settings.get("find-links", [])) else ["--torch-backend=cpu"]
    folder = LOCK.parent
    compile_lock(folder / "direct.in", LOCK, "--override", str(folder / "overrides.txt"), *torch, settings=settings)


def compile_lock(wanted: Path, lock: Path, *more: str, settings: dict[str, list[str]]) -> None:
    """Write a lock anew from what is wanted: the same in each, and without an address in it."""
    uv("pip", "compile", str(wanted), *more, "--output-file", str(lock), "--python-version", "3.11",
       "--python-platform", "x86_64-manylinux_2_28", "--no-header", "--no-annotate", "--quiet",
       settings=settings)  # fmt: skip
    say(f"wrote {lock.relative_to(ROOT)}")


def uv(*arguments: str, settings: dict[str, list[str]] | None = None) -> None:
    """Run uv with pip's settings, spelt as uv's flags and environment."""
    settings = settings or {}
    flags: list[str] = []
    if indexes := settings.get("index-url"):
        flags += ["--index-url", indexes[-1]]
    for index in settings.get("extra-index-url", []):
        flags += ["--extra-index-url", index]
    for place in settings.get("find-links", []):
        flags += ["--find-links", place]
    for host in settings.get("trusted-host", []):
        flags += ["--allow-insecure-host", host]
    if settings.get("no-index", ["false"])[-1].lower() in ("1", "true", "yes", "on"):
        flags += ["--no-index"]
    if settings.get("extra-index-url"):
        # As pip does: the best version of all indexes, not the first index that knows the name.
        flags += ["--index-strategy", "unsafe-best-match"]
    environment = dict(os.environ)
    if certificates := settings.get("cert"):
        environment.setdefault("SSL_CERT_FILE", certificates[-1])
    if seconds := settings.get("default-timeout") or settings.get("timeout"):
        environment.setdefault("UV_HTTP_TIMEOUT", seconds[-1])
    run([str(VENV / "bin" / "uv"), *arguments, *flags], environment)


def pip_settings() -> dict[str, list[str]]:
    """What pip is told on this machine: by its files, then by the environment, which wins."""
    listed = subprocess.run(
        [str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    settings: dict[str, list[str]] = {}
    for line in sorted(listed, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        settings[key] = value.strip("'\"").replace("\\n", " ").split()
    return settings


def holds_torch(places: list[str]) -> bool:
    """Whether a folder that pip is pointed to has the CPU build of torch that the lock names."""
    pin = next(line for line in LOCK.read_text().splitlines() if line.startswith("torch=="))
    start = pin.replace("==", "-") + "-"
    for place in places:
        folder = Path(unquote(urlsplit(place).path) if place.startswith("file:") else place).expanduser()
        if folder.is_dir() and any(unquote(wheel.name).startswith(start) for wheel in folder.iterdir()):
            return True
    return False


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a command that shows its own output; stop with its status if it fails."""
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode != 0:
        name = " ".join([Path(command[0]).name, *command[1:3]])
        fail(f"`{name} …` failed with status {done.returncode}; what it said stands above.")


def say(words: str) -> None:
    """Say what is being done."""
    print(f"[install] {words}", flush=True)


def fail(words: str) -> None:
    """Say why it can't go on, and stop."""
    sys.exit(f"[install] {words}")


if __name__ == "__main__":
    main(sys.argv[1:])
