"""`make switching`: three real models on one host with one place, and what their switches cost, against first come.

Twelve batches of two vLLM engines and one llama.cpp come one after the other (pool_batches.py), and calls to a model
that is woken for them. Each line must have one answer, in order. Then the same arrivals with a host that goes by the
oldest work (fifo_host.py), in two ways: `fifo` works on one batch at a time in the order of their coming, as a script
around `vllm run-batch` does; `fifo-shared` hands out all that waits for the version that is awake. It takes a quarter
of an hour on two idle cores, since a start of vLLM takes half a minute.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from bench import pool_batches
from bench.pool_batches import BATCHES, CALLS, LLAMA, SEED_ONE, SEED_TWO
from e2e.live import chat
from faults.house import KEY, House
from faults.house_pool import POOL, HousePool
from faults.load import check
from faults.servers import PostgresServer, ValkeyServer

from penstock.domain.models.version import Definition
from penstock.stack import tiny_model

POLICIES = ("ours", "fifo", "fifo-shared")
_HOST = "host-1"
_TOKENS = 32
_ECHO = Definition("echo", "echo", ("--latency-ms=50", "--max-num-seqs=8"))
_MOST_SECONDS = 3_600.0
_WAIT = """
    select extract(epoch from min(l.opened_at) - b.created_at)::float8 from batches b join leases l on l.batch = b.id
    where l.kind = 'slice' and b.id = %s group by b.id"""


@dataclass
class Found:
    """What one policy did."""

    policy: str
    switches: int = 0
    seconds_lost: float = 0.0
    longest_wait: float = 0.0
    """From a batch's coming to the first claim of its lines."""
    longest_call: float = 0.0
    seconds: float = 0.0
    why: dict[str, int] = field(default_factory=dict)


def main() -> None:
    """Run one policy or both, and say what each did; exits with 1 if a line is missing, doubled or out of order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--echo", action="store_true", help="simulated engines: to try the proof itself")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ps-") as name:
        folder = Path(name)
        members = dict.fromkeys(pool_batches.MODELS, _ECHO) if given.echo else _models(folder)
        found = []
        for policy in given.policies:
            found.append(_run(policy, folder / policy, members))
            print(json.dumps(found[-1].__dict__), flush=True)
    for other in found[1:]:
        print(f"{found[0].switches} switches against {other.switches} of {other.policy}, {found[0].seconds_lost:.0f} s"
              f" against {other.seconds_lost:.0f} s lost", flush=True)  # fmt: skip


def _models(folder: Path) -> dict[str, Definition]:
    """Two models whose weights differ by their seed, and the first once more as a GGUF file."""
    make = "import sys; from pathlib import Path; from penstock_worker.engine import tiny; tiny.SEED = int(sys.argv[2])"
    for seed, name in enumerate((SEED_ONE, SEED_TWO), 7):
        subprocess.run([sys.executable, "-c", f"{make}; tiny.make(Path(sys.argv[1]))", folder / name, str(seed)],
                       check=True, capture_output=True)  # fmt: skip
    file = folder / "llama.gguf"
    subprocess.run([sys.executable, "-m", "penstock_worker.engine.tiny_gguf", folder / SEED_ONE, file], check=True)
    flags = ("--max-num-seqs=32", "--max-model-len=1024", *tiny_model.dtype_arguments(()))
    return {
        SEED_ONE: Definition(str(folder / SEED_ONE), "vllm", flags),
        SEED_TWO: Definition(str(folder / SEED_TWO), "vllm", flags),
        LLAMA: Definition(str(file), "llamacpp", ("--parallel=8", "--ctx-size=8192")),
    }


def _run(policy: str, folder: Path, members: dict[str, Definition]) -> Found:
    folder.mkdir()
    with PostgresServer(folder) as postgres, ValkeyServer(folder) as valkey:
        house = House(
            postgres.url, valkey.url, folder / "house", gpus=0, pool=HousePool(members, {"awake": 1}), wait=False,
            environment={"VLLM_CPU_KVCACHE_SPACE": "1"},
        )  # fmt: skip
        if policy != "ours":
            host = house.residents[_HOST]
            host.arguments = ["bench.fifo_host", *host.arguments[1:]]
            host.environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        with house:
            house.wait_until_answering()
            return _measured(policy, house)


def _measured(policy: str, house: House) -> Found:
    began = time.monotonic()
    waits: list[float] = []
    callers = [threading.Thread(target=_call, args=(house.url, at, began, waits)) for at in CALLS]
    for caller in callers:
        caller.start()
    ids, held = [], []
    for number, one in enumerate(BATCHES):
        if policy == "fifo" and ids:
            house.client.ended(ids[-1], _MOST_SECONDS)
        time.sleep(max(0.0, began + one.at_seconds - time.monotonic()))
        held.append(time.monotonic() - began - one.at_seconds)
        ids.append(house.client.submit(_lines(number), metadata={"priority": one.lane}).id)
    for number, id in enumerate(ids):
        _check(house, number, id)
        _say(f"{policy}: batch {number} is done, {time.monotonic() - began:.0f} s after the first came")
    for caller in callers:
        caller.join()
    check(house)
    found = Found(policy, seconds=round(time.monotonic() - began, 1), longest_call=round(max(waits), 1))
    rows = house.rows("select why, seconds from pool_decisions where pool = %s and state = 'done'"
                      " and leaves is not null", POOL)  # fmt: skip
    found.switches, found.seconds_lost = len(rows), round(sum(seconds for _, seconds in rows), 1)
    found.why = {why: [each for each, _ in rows].count(why) for why in {each for each, _ in rows}}
    found.longest_wait = round(max(late + house.ask(_WAIT, id) for late, id in zip(held, ids, strict=True)), 1)
    return found


def _lines(number: int) -> list[dict[str, Any]]:
    one = BATCHES[number]
    return [
        chat(f"{number}-{line}", f"Line {line} of batch {number}.", one.model, max_tokens=_TOKENS)
        for line in range(one.lines)
    ]


def _check(house: House, number: int, id: str) -> None:
    batch = house.client.ended(id, _MOST_SECONDS)
    if batch.status != "completed" or batch.error_file_id is not None:
        raise SystemExit(f"batch {number} ended as {batch.status}, with {batch.request_counts}")
    got = [line["custom_id"] for line in house.client.file(batch.output_file_id)]
    if got != [f"{number}-{line}" for line in range(BATCHES[number].lines)]:
        raise SystemExit(f"batch {number} has not each line once and in order: {got}")


def _call(url: str, at: float, began: float, waits: list[float]) -> None:
    """One call, asked again while it is told to come back; how long its caller waited."""
    time.sleep(max(0.0, began + at - time.monotonic()))
    asked = time.monotonic()
    body = {"model": pool_batches.LLAMA, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    with httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=600, trust_env=False) as client:
        while (answer := client.post(f"{url}/v1/chat/completions", json=body)).status_code == 503:
            time.sleep(min(5.0, float(answer.headers.get("retry-after", "1"))))
    answer.raise_for_status()
    waits.append(time.monotonic() - asked)


def _say(words: str) -> None:
    print(f"[switching] {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
