"""Build what a release consists of, install it into empty environments and try it; publishes nothing.

Standard library only; run by `make release` with the interpreter of `.venv`, whose locked packages stand in for an
index: an empty environment gets the wheel (or the sdist) itself with pip, and sees the dependencies of `.venv`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
STATIC = ROOT / "platform" / "penstock" / "console" / "static"
PACKAGES = ROOT / ".venv" / "lib" / "python3.11" / "site-packages"


def main() -> None:
    """Check the changelog, build wheel and sdist, and try each of them."""
    begin = time.monotonic()
    version = version_of((ROOT / "platform" / "penstock" / "__init__.py").read_text())
    check_changelog(version)
    wheel, sdist = build(version)
    for package in (wheel, sdist):
        attempt(package, version)
    say(f"{version} can be released; done in {time.monotonic() - begin:.0f} s. Nothing was published.")


def version_of(source: str) -> str:
    """The version that the package says it has."""
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    return found[1] if found else fail("platform/penstock/__init__.py has no __version__.")


def check_changelog(version: str) -> None:
    """Stop if CHANGELOG.md has no heading of this version; say if something is listed as unreleased."""
    page = (ROOT / "CHANGELOG.md").read_text()
    if not re.search(rf"^## \[{re.escape(version)}\]", page, re.MULTILINE):
        fail(f"CHANGELOG.md has no heading `## [{version}]`: say there what this version changes.")
    say(f"CHANGELOG.md has {version}")
    if re.search(r"^## \[Unreleased\]\s+[^\s#]|^## \[Unreleased\]\s+###", page, re.MULTILINE):
        say("it lists changes as unreleased: they are in what is built here, under this version's number")


def build(version: str) -> tuple[Path, Path]:
    """Build both with hatchling, without a network."""
    for kind in ("wheel", "sdist"):
        run([sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(DIST)])
    wheel, sdist = DIST / f"penstock-{version}-py3-none-any.whl", DIST / f"penstock-{version}.tar.gz"
    for package in (wheel, sdist):
        if not package.is_file():
            fail(f"hatchling did not make {package.relative_to(ROOT)}.")
        say(f"built {package.relative_to(ROOT)}, {package.stat().st_size // 1024} KiB")
    return wheel, sdist


def attempt(package: Path, version: str) -> None:
    """Install a package into an empty environment and try what a person would try first."""
    with tempfile.TemporaryDirectory(prefix="penstock-release-") as folder:
        home = Path(folder)
        say(f"installing {package.name} into an empty environment")
        venv.create(home / "venv", with_pip=True)
        python = home / "venv" / "bin" / "python"
        site = next((home / "venv").glob("lib/python*/site-packages"))
        # A path file's path only adds packages: .venv's own path files, and so its editable penstock, are not read.
        (site / "locked.pth").write_text(f"{PACKAGES}\n")
        run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps",
             "--no-build-isolation", "--force-reinstall", str(package)])  # fmt: skip
        where = run([str(python), "-I", "-c", "import penstock, penstock_worker; print(penstock.__file__)"], home)
        if not Path(where.strip()).is_relative_to(site):
            fail(f"penstock came from {where.strip()}, not from {package.name}.")
        found = run([str(python), "-I", "-c", _ASK], home).split()
        revisions = sorted(file.stem for file in (ROOT / "migrations" / "versions").glob("*.py"))
        if found != [version, str(len(revisions)), "typed"]:
            fail(f"installed are version, migrations and py.typed {found}; {len(revisions)} migrations were expected.")
        pages = run([str(python), "-I", "-c", _OPEN_CONSOLE], home).strip()
        say(f"opened {pages}")
        penstock = str(home / "venv" / "bin" / "penstock")
        for command in ([penstock, "--help"], [penstock, "migrate", "--help"],
                        [str(python), "-m", "penstock_worker", "--help"]):  # fmt: skip
            run(command, home)
        say(f"tried: penstock --help, penstock migrate --help, python -m penstock_worker --help; "
            f"{len(revisions)} migrations are found, up to {revisions[-1]}")  # fmt: skip


# Where `penstock migrate` looks, how many revisions alembic finds there, and whether type checkers may trust us.
_ASK = """
from importlib.metadata import version
from pathlib import Path
import penstock, penstock_worker
from alembic.config import Config
from alembic.script import ScriptDirectory
from penstock.store.revision import scripts
config = Config()
config.set_main_option("script_location", str(scripts()))
typed = all((Path(one.__file__).parent / "py.typed").is_file() for one in (penstock, penstock_worker))
print(version("penstock"), len(list(ScriptDirectory.from_config(config).walk_revisions())), "typed" if typed else "-")
"""

# The console's first page, as a browser gets it, and each asset that the source tree has.
_OPEN_CONSOLE = f"""
import asyncio, httpx
from penstock.console import assets
from penstock.console.app import create_console

async def main():
    app = create_console(lambda: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        page = await client.get("/console/login")
        assert page.status_code == 200 and "API key" in page.text, page.text
        wanted = {sorted(file.name for file in STATIC.rglob("*") if file.suffix in (".css", ".js", ".svg"))!r}
        for file in wanted:
            found = await client.get(assets.path_of(file))
            assert found.status_code == 200 and found.content, file
        print(f"/console/login and {{len(wanted)}} assets")

asyncio.run(main())
"""


def run(command: list[str], folder: Path = ROOT) -> str:
    """What a command prints; stop with all that it said if it fails. It sees no PYTHONPATH and no settings of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PENSTOCK_"))}
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        fail(f"`{' '.join(command[:4])} …` failed with status {done.returncode}; what it said stands above.")
    return done.stdout


def say(words: str) -> None:
    """Say what is being done."""
    print(f"[release] {words}", flush=True)


def fail(words: str) -> str:
    """Say why it can't go on, and stop."""
    sys.exit(f"[release] {words}")


if __name__ == "__main__":
    main()
