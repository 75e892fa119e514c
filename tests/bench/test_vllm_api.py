"""The benchmarks use names of vLLM's that move: where each stands is checked in the sources, without importing them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from bench import vllm_api

MOVED = "vllm.entrypoints.launchers.run_batch"


def installed() -> Path:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def test_the_installed_vllm_has_each_name_and_flag() -> None:
    assert vllm_api.missing(installed()) == []


def test_a_name_is_found_where_an_older_vllm_has_it(tmp_path: Path) -> None:
    (tmp_path / "entrypoints" / "openai").mkdir(parents=True)
    (tmp_path / "entrypoints" / "openai" / "run_batch.py").write_text("async def run_batch(engine, args): ...\n")
    assert vllm_api.where(tmp_path) == {"run_batch": "vllm.entrypoints.openai.run_batch"}


def test_what_a_vllm_lacks_is_named_with_the_places_where_it_was_looked_for(tmp_path: Path) -> None:
    lacking = vllm_api.missing(tmp_path)
    assert f"run_batch in {MOVED} or vllm.entrypoints.openai.run_batch" in lacking
    assert "--convert in engine/arg_utils.py" in lacking


def test_a_module_that_imports_a_name_is_not_its_place(tmp_path: Path) -> None:
    (tmp_path / "usage").mkdir()
    (tmp_path / "usage" / "usage_lib.py").write_text("from enum import Enum as UsageContext\n")
    assert "UsageContext" not in vllm_api.where(tmp_path)


def test_a_name_that_no_version_has_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vllm_api.PLACES, "nothing", ("json.nowhere", "json.neither"))
    with pytest.raises(ImportError, match=r"no nothing in json.nowhere or json.neither"):
        vllm_api.get("nothing")
