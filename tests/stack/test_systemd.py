"""The systemd units run what docs/many-machines.md runs by hand, each with as little as it needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.walk import FILES, commands
from programs import program

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = {file.name.partition(".")[0].removeprefix("penstock-").rstrip("@"): file for file in FOLDER.glob("*.service")}
BIN = "/opt/penstock/bin/"


def values(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.+)$", unit.read_text(), re.MULTILINE)


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, Path]:
    """The units, with this environment in the place of /opt/penstock: the program must be there."""
    made = {}
    for name, unit in UNITS.items():
        made[name] = tmp_path / unit.name
        made[name].write_text(unit.read_text().replace(BIN, f"{Path(sys.executable).parent}/"))
    return made


def test_there_is_a_unit_for_each_process_and_it_runs_the_pages_command() -> None:
    run = {name: values(unit, "ExecStart") for name, unit in UNITS.items()}
    assert set(run) == {"migrate", "api", "keeper", "io", "worker"}
    page = "\n".join(commands(heading) for heading in ("The machine `one`", "Each machine with a GPU")).splitlines()
    for name, [command] in run.items():
        assert command.startswith(f"{BIN}penstock {name}")
        by_hand = command.removeprefix(BIN) + (" &" if name != "migrate" else "")
        assert by_hand in page


def test_each_reads_files_of_the_page_and_secrets_are_with_those_who_need_them() -> None:
    read = {
        name: {Path(file).name.replace("%i", "chat") for file in values(unit, "EnvironmentFile")}
        for name, unit in UNITS.items()
    }
    assert set.union(*read.values()) == set(FILES)
    assert {name for name, files in read.items() if "penstock.env" in files} == set(UNITS)
    assert {name for name, files in read.items() if "webhooks.env" in files} == {"migrate", "api", "io"}
    assert {name for name, files in read.items() if "ingress.env" in files} == {"api", "worker"}


def test_systemd_finds_nothing_wrong_with_them(installed: dict[str, Path]) -> None:
    command = [program("systemd-analyze", "systemd"), "verify", "--man=no", *map(str, installed.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "most"), [("migrate", 20), ("api", 20), ("keeper", 20), ("io", 20), ("worker", 40)])
def test_each_is_exposed_as_little_as_systemd_can_see(installed: dict[str, Path], name: str, most: int) -> None:
    """In tenths of systemd's own scale of 10: the worker's engine needs devices, and memory that it compiles into."""
    command = [program("systemd-analyze", "systemd"), "security", "--offline=true", f"--threshold={most}"]
    done = subprocess.run([*command, str(installed[name])], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-300:]


def test_only_a_workers_own_process_is_told_to_end_and_has_the_time_for_it() -> None:
    worker = UNITS["worker"]
    assert values(worker, "KillMode") == ["mixed"], "its engine goes on until the worker has recorded what is in it"
    assert int(values(worker, "TimeoutStopSec")[0]) > 20 + 10
