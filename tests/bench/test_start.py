"""(e): only an engine that says so has no sleep mode, and the remark of a cold start says what was compiled for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bench import bare, engine_python, start
from bench.gpu.start import PART


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter for engines with vLLM for CUDA; what it does when it is asked is written here."""
    python = tmp_path / "python"
    monkeypatch.setenv("PENSTOCK_ENGINE_PYTHON", str(python))
    monkeypatch.setattr(engine_python, "on_cpu", lambda: False)
    return python


def does(probe: Path, script: str) -> None:
    probe.write_text(f"#!/bin/sh\n{script}\n")
    probe.chmod(0o755)


def test_only_what_vllm_says_is_taken_for_no_sleep_mode(probe: Path) -> None:
    does(probe, "echo WARNING a log line; echo True")
    assert start.no_sleep_mode("vllm") == ""
    does(probe, "echo False")
    assert start.no_sleep_mode("vllm") == "vLLM has no sleep mode here"
    for crash in ("echo Traceback >&2; echo 'ImportError: libcuda.so.1' >&2; exit 1", "echo False; false"):
        does(probe, crash)
        with pytest.raises(RuntimeError, match=r"whether it has a sleep mode: (ImportError: libcuda|status 1)"):
            start.no_sleep_mode("vllm")


def test_a_probe_that_crashes_is_a_failure_with_its_reason_and_the_start_is_measured_all_the_same(
    probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, flags = tmp_path / "found.json", []

    @contextmanager
    def engine(name: str, source: str, folder: Path, arguments: list[str], **_: Any) -> Iterator[Path]:
        flags.extend(arguments)
        yield folder

    async def started(*_: Any) -> dict[str, Any]:
        return {"seconds": 40.0, "memory_mib": 1_024.0}

    does(probe, "echo 'ImportError: libcuda.so.1' >&2; exit 1")
    monkeypatch.setattr(bare, "engine", engine)
    monkeypatch.setattr(start, "started", started)
    monkeypatch.setattr(start, "memory_mib", lambda: 0.0)
    monkeypatch.setattr("bench.engine_python.dtype_arguments", lambda given: ())
    monkeypatch.setattr(sys, "argv", ["start", "--model", str(tmp_path), "--json", str(file)])
    start.main()
    found = json.loads(file.read_text())
    assert "ImportError: libcuda.so.1" in found["lost"]["sleep"]
    assert "--enable-sleep-mode" not in flags
    assert [row.open for row in PART.rows(found)] == [False, True, True]


def test_a_cold_start_says_whether_anything_was_compiled_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    empty = start.compiled()
    (tmp_path / "torch_compile_cache" / "torch_aot_compile" / "one").mkdir(parents=True)
    one = start.compiled()
    (tmp_path / "torch_compile_cache" / "torch_aot_compile" / "two").mkdir()
    assert start.compiling(empty, empty) == "nothing compiled was kept"
    assert start.compiling(empty, one) == start.compiling(one, start.compiled()) == "it compiled anew"
    words = start.compiling(one, one)
    assert words.startswith("compiled by an earlier start")
    row, *_ = PART.rows({"start": {"seconds": 40.0, "memory_mib": 1_024.0, "compiled": words}})
    assert row.remark == f"1,024 MiB after it; {words}"
