"""Where cores are few, vLLM's processes sleep while they wait for each other; elsewhere nothing of vLLM is touched."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from penstock_worker.engine.launch_spec import BadLaunch
from penstock_worker.engine.vllm import idle_yield

# What each process of an engine does as it starts, and then how long a yield takes at least: a yield that is none of
# ours may take long too, where others want the core.
_LOADED = """
import os, time
from vllm.plugins import load_general_plugins
from vllm.distributed.utils import sched_yield
load_general_plugins()
def took():
    began = time.perf_counter()
    sched_yield()
    return time.perf_counter() - began
print("yield took", min(took() for _ in range(100)), os.sched_yield.__module__)
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


@pytest.mark.parametrize(("said", "sleeps"), [("0.002", True), ("0", False), (None, False)])
def test_vllms_own_loader_finds_it_and_its_yield_becomes_a_nap(said: str | None, sleeps: bool) -> None:
    env = {name: value for name, value in os.environ.items() if name != idle_yield.VARIABLE}
    if said is not None:
        env[idle_yield.VARIABLE] = said
    done = subprocess.run([sys.executable, "-c", _LOADED], env=env, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("yield took")]
    *_, seconds, module = line.split()
    assert (float(seconds) >= 0.002) is sleeps
    assert (module == idle_yield.__name__) is sleeps
