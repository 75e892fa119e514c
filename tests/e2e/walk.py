"""The walk of docs/many-machines.md: its environment files and its commands, on machines that are a folder each."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from penstock.stack.child import last_lines, tie

PAGE: Final = Path(__file__).parents[2] / "docs" / "many-machines.md"
FILES: Final[Mapping[str, list[str]]] = {
    name: re.findall(r"^([A-Z_]+)=", lines, re.MULTILINE)
    for name, lines in re.findall(r"^```ini\n# (\S+\.env)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
}
"""The page's environment files, and the variables in each."""
_FOLDER: Final = "/etc/penstock"
_SECONDS: Final = 60


def commands(heading: str) -> str:
    """The page's commands under this heading."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    [block] = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return str(block)


class Machine:
    """One machine: a folder in the place of /etc/penstock, and the processes that the page's commands leave there."""

    def __init__(self, folder: Path, files: Mapping[str, Mapping[str, str]], own: Mapping[str, str]) -> None:
        """With these environment files; `own` is what the page leaves to the defaults and no two tests may share."""
        self.folder = folder
        self.logs: dict[str, Path] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()
        binaries = Path(sys.executable).parent
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        self._environment["PATH"] = f"{binaries}:{os.environ.get('PATH', os.defpath)}"
        folder.mkdir(parents=True)
        for name, values in files.items():
            assert [*values] == FILES[name], f"the page's {name} has other variables"
            lines = [f"{key}={shlex.quote(value)}\n" for key, value in (values | own).items()]
            (folder / name).write_text("".join(lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all by SIGTERM; each ends well."""
        if error is not None:
            error.add_note("\n".join(f"--- {name}\n{last_lines(log, 6, 4_096)}" for name, log in self.logs.items()))
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        codes = {}
        for name, process in self._processes.items():
            try:
                codes[name] = process.wait(_SECONDS)
            finally:
                process.kill()
        if error is None:
            assert set(codes.values()) <= {0}, codes

    def run(self, block: str, replaced: Mapping[str, str] | None = None) -> str:
        """Run these commands as they are, but for the folder and what is `replaced`; what they say on standard output.

        Those that end in `&` stay until the end of the `with`, each tied to this process by the kernel.
        """
        for old, new in {_FOLDER: str(self.folder), **(replaced or {})}.items():
            block = block.replace(old, new)
        staying = re.findall(r"^(.+) &$", block, re.MULTILINE)
        first = re.sub(r"^.+ &$\n?", "", block, flags=re.MULTILINE)
        done = subprocess.run(
            ["bash", "-e", "-c", first], env=self._environment, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        entered = "".join(line for line in block.splitlines(keepends=True) if re.match("cd |set -a", line))
        for command in staying:
            self._leave(command, f"{entered}exec {command}")
        return done.stdout

    def _leave(self, command: str, script: str) -> None:
        name = command.split()[1]
        self.logs[name] = self.folder / f"{name}.log"
        with self.logs[name].open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [*tie(signal.SIGKILL), "-", "bash", "-e", "-c", script],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
