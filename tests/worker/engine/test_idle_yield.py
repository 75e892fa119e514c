"""Where cores are few, vLLM's processes sleep while they wait for each other; elsewhere nothing of vLLM is touched."""

from __future__ import annotations

import subprocess
import sys

import pytest
from worker.forks import EACH_IN_A_FORK

from penstock_worker.engine.launch_spec import BadLaunch
from penstock_worker.engine.vllm import idle_yield

# What each process of an engine does as it starts, and then how long a yield takes at least: a yield that is none of
# ours may take long too, where others want the core. vLLM is imported once; a fork takes each word of the operator's.
_LOADED = """
import os, sys, time
from vllm.plugins import load_general_plugins
from vllm.distributed.utils import sched_yield
words = sys.argv[1:]
"""
_LOADED += EACH_IN_A_FORK
_LOADED += """
os.environ.pop("PENSTOCK_ENGINE_IDLE_YIELD_SECONDS", None)
if said != "nothing":
    os.environ["PENSTOCK_ENGINE_IDLE_YIELD_SECONDS"] = said
load_general_plugins()
def took():
    began = time.perf_counter()
    sched_yield()
    return time.perf_counter() - began
print("yield took", said, min(took() for _ in range(100)), os.sched_yield.__module__, flush=True)
"""


@pytest.mark.parametrize(("cores", "parts", "told"), [(2, 1, True), (5, 1, True), (6, 1, False), (12, 8, True)])
def test_an_engine_is_told_to_nap_where_its_processes_would_take_the_cores_of_others(
    cores: int, parts: int, told: bool
) -> None:
    assert (idle_yield.environment({}, parts, cores) == {idle_yield.VARIABLE: "0.000050"}) is told


def test_an_operators_word_stands() -> None:
    assert idle_yield.environment({idle_yield.VARIABLE: "0"}, 1, cores=2) == {idle_yield.VARIABLE: "0"}
    assert idle_yield.environment({idle_yield.VARIABLE: "0.001"}, 1, cores=64) == {idle_yield.VARIABLE: "0.001"}
    for wrong in ("soon", "-1", "1", "nan"):
        with pytest.raises(BadLaunch, match=f"from 0 to 0.01, not '{wrong}'"):
            idle_yield.environment({idle_yield.VARIABLE: wrong}, 1, cores=2)


@pytest.fixture(scope="module")
def loaded() -> str:
    """What processes of an engine say that were told to sleep, not to, and nothing."""
    command = [sys.executable, "-c", _LOADED, "0.002", "0", "nothing"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize(("said", "sleeps"), [("0.002", True), ("0", False), ("nothing", False)])
def test_vllms_own_loader_finds_it_and_its_yield_becomes_a_sleep(said: str, sleeps: bool, loaded: str) -> None:
    (line,) = [line for line in loaded.splitlines() if line.startswith(f"yield took {said} ")]
    *_, seconds, module = line.split()
    assert (float(seconds) >= 0.002) is sleeps
    assert (module == idle_yield.__name__) is sleeps
