"""The machine of `make bench-gpu`: what is there, what is missing, and which card is looked at."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import engine_python
from bench.gpu import machine, shapes
from bench.gpu.machine import Card, Machine


def there(*cards: Card, vllm: str | None = "0.25.1") -> Machine:
    return Machine(cards, 16, 128, "3.11", "/venv/bin/python", vllm, trouble="" if vllm else "There is no vLLM.")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (there(), "no CUDA GPU"),
        (there(Card("L4", "580", 23_034, 0)), "take --shape 1b"),
        (there(Card("H100", "580", 81_559, 40_000)), "in use"),
        (there(Card("H100", "580", 81_559, 4), vllm="0.32.0+cpu"), "computes on the CPU"),
        (there(Card("H100", "580", 81_559, 4), vllm=None), "There is no vLLM."),
    ],
)
def test_what_is_missing_is_said_in_one_line(found: Machine, words: str) -> None:
    assert words in machine.missing(found, shapes.SHAPES["8b"])


def test_nothing_is_missing_where_a_card_and_its_vllm_are_there_or_only_the_course_is_tried() -> None:
    assert machine.missing(there(Card("H100", "580", 81_559, 4)), shapes.SHAPES["8b"]) == ""
    assert machine.missing(there(vllm="0.32.0+cpu"), shapes.SHAPES["tiny"]) == ""


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Name an interpreter for engines that has vLLM for CUDA and this torch, on a machine with a card."""

    def name(torch: str) -> None:
        (tmp_path / "torch.py").write_text(torch)
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}:$PYTHONPATH" exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        monkeypatch.setenv("PENSTOCK_ENGINE_PYTHON", str(python))
        monkeypatch.setattr(engine_python, "build", lambda: ("0.25.1", True))
        monkeypatch.setattr(machine, "cards", lambda: (Card("H100", "580", 81_559, 4),))

    return name


TORCH = """
class version: cuda = "13.0"
class cuda:
    is_available = staticmethod(lambda: True)
    get_device_capability = staticmethod(lambda: (9, 0))
class Ones:
    __mul__ = lambda self, other: self
    sum = item = lambda self: self
__version__ = "2.11.0"
ones = lambda size, device: Ones()
"""


def test_the_engines_interpreter_computes_on_the_card_before_anything_is_begun(named: Callable[[str], None]) -> None:
    named(TORCH)
    found = machine.look()
    assert machine.missing(found, shapes.SHAPES["8b"]) == ""
    assert "torch 2.11.0 for CUDA 13.0" in found.text()
    assert found.identity()["torch"] == {"torch": "2.11.0", "cuda": "13.0", "capability": "9.0"}
    assert found.json()["torch"] == found.identity()["torch"]


@pytest.mark.parametrize(
    ("torch", "words"),
    [
        (TORCH.replace("lambda: True", "lambda: False"), "torch 2.11.0 for CUDA 13.0 finds no card"),
        (TORCH.replace('"13.0"', "None"), "torch 2.11.0 is not built for CUDA"),
        (f"{TORCH}\ndef ones(*a, **b): raise RuntimeError('no kernel image')", "RuntimeError: no kernel image"),
        ("import nowhere", "No module named 'nowhere'"),
    ],
)
def test_a_torch_that_cannot_use_the_card_is_missing_in_one_line(
    torch: str, words: str, named: Callable[[str], None]
) -> None:
    named(torch)
    lacking = machine.missing(machine.look(), shapes.SHAPES["8b"])
    assert words in lacking
    assert "\n" not in lacking


def test_nothing_is_asked_of_a_card_where_there_is_none(
    named: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    named("raise AssertionError")
    monkeypatch.setattr(engine_python, "build", lambda: ("0.32.0+cpu", True))
    assert machine.look().trouble == ""
    monkeypatch.setattr(engine_python, "build", lambda: ("0.25.1", True))
    monkeypatch.setattr(machine, "cards", lambda: ())
    assert machine.look().trouble == ""


@pytest.mark.parametrize(
    ("visible", "asked"),
    [("2", ["-i", "2"]), ("1,0", ["-i", "1"]), (f"GPU-{'a' * 8}-{'b' * 27}", ["-i", f"GPU-{'a' * 8}-{'b' * 27}"]),
     ("", []), ("MIG-7", [])],
)  # fmt: skip
def test_the_card_that_is_looked_at_is_the_one_that_engines_see_first(
    visible: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "nvidia-smi"
    shown.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\necho 'H100, 580, 81559, 4'\n")
    shown.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.cards() == (Card("H100", "580", 81_559, 4),)
    assert (tmp_path / "asked").read_text().split()[2:] == asked


def test_cards_are_read_as_nvidia_smi_prints_them() -> None:
    assert machine.read_cards("NVIDIA H100 80GB HBM3, 580.159.04, 81559, 4\n") == (
        Card("NVIDIA H100 80GB HBM3", "580.159.04", 81_559, 4),
    )
    assert machine.read_cards("No devices were found\n") == ()
