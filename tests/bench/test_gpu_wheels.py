"""`make bench-gpu --wheels`: an environment with vLLM and Penstock for engines, or one line that says why not."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from bench import engine_python
from bench.gpu import wheels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A wheel named vllm that has nothing in it."""
    made = tmp_path / "wheels"
    made.mkdir()
    about = "vllm-0.25.1.dist-info"
    with zipfile.ZipFile(made / "vllm-0.25.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("vllm/__init__.py", "")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: vllm\nVersion: 0.25.1\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return made


@pytest.mark.slow
def test_an_environment_has_the_vllm_of_the_folder_and_penstock_and_sees_the_named_interpreters_packages(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ENGINE_PYTHON", sys.executable)
    said: list[str] = []
    python = wheels.environment(str(folder), tmp_path / "venv", "vllm", said.append)
    monkeypatch.setenv("PENSTOCK_ENGINE_PYTHON", str(python))
    engine_python.build.cache_clear()
    try:
        assert engine_python.build() == ("0.25.1", True)
    finally:
        engine_python.build.cache_clear()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-c", "import psutil"], check=True, env=environment)


def test_what_is_not_in_the_folder_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(wheels.NotSetUp, match=r"pip install: .*vllm==0\.1"):
        wheels.environment(str(folder), tmp_path / "venv", "vllm==0.1", print)


def test_a_place_that_is_no_folder_and_no_index_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(wheels.NotSetUp, match="neither a folder"):
        wheels.environment("/nowhere", tmp_path / "venv", "vllm", print)
    assert not (tmp_path / "venv").exists()


def test_what_is_asked_for_again_is_left_alone_and_what_differs_is_made_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    commit = ["c"]
    monkeypatch.setattr("bench.result.commit", lambda: commit[0])
    monkeypatch.setattr(wheels, "_vllm", lambda *asked: made.append(f"{asked[2]} of {Path(asked[0]).name}"))
    monkeypatch.setattr(wheels, "_penstock", lambda python: made.append("penstock"))
    (tmp_path / "venv").mkdir()

    def asked(requirement: str, wheels_: Path = folder) -> list[str]:
        made.clear()
        wheels.environment(str(wheels_), tmp_path / "venv", requirement, lambda words: None)
        return list(made)

    other = tmp_path / "other"
    other.mkdir()
    wheels.ready(tmp_path / "venv").touch()
    assert asked("vllm") == ["vllm of wheels", "penstock"]
    assert asked("vllm") == []
    assert asked("vllm==0.25.1") == ["vllm==0.25.1 of wheels", "penstock"]
    assert asked("vllm==0.25.1", other) == ["vllm==0.25.1 of other", "penstock"]
    commit[0] = "d-dirty"
    assert asked("vllm==0.25.1", other) == ["penstock"]
    assert asked("vllm==0.25.1", other) == ["penstock"]  # it may have changed again
    commit[0] = "e"
    monkeypatch.setattr(wheels, "_penstock", lambda python: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        asked("vllm==0.25.1", other)
    assert not wheels.ready(tmp_path / "venv").exists()


def test_pip_does_not_say_that_it_could_be_newer(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.delenv("PENSTOCK_ENGINE_PYTHON", raising=False)
    monkeypatch.setattr(wheels, "_run", lambda *command: ran.append(command) or "")
    (tmp_path / "venv").mkdir()
    wheels.environment(str(folder), tmp_path / "venv", "vllm", print)
    pips = [command for command in ran if "pip" in command]
    assert len(pips) == 3
    assert all("--disable-pip-version-check" in command for command in pips)
