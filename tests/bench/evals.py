"""`make bench-evals`: whether comparisons of runs are right as often as they say, and what a run over many lines costs.

pairs   80 batches of 300 lines on the real vLLM, alike but for their lines' sampling seeds: 40 pairs of equal quality.
        At 95 % some are accused by chance: more than the binomial bound (one case in a hundred) is a failure.
planted the same model once more, greedy, with an answer cut short in 15 of 300 lines: five points, which must be found.
scale   a run over a batch of a million lines that has ended, and a comparison of two such runs, on the simulated
        engine: lines a second and peak memory of the io worker.

Prints a table and writes JSON; exits with 1 if `pairs` or `planted` fail.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
from bench import result, stop
from e2e.live import Platform, chat, jsonl, until, up
from rich.console import Console
from rich.table import Table

from penstock.blobs.store import Blobs
from penstock.stack import postgres

LINES: Final = 300
PAIRS: Final = 40
PLANTED: Final = 15
CHANCE: Final = 0.05
"""Of a pair of equal quality to be accused."""
_TOKENS: Final = 4
_LETTERS: Final = "aeiourstln"


def say(words: str) -> None:
    """Tell whoever waits."""
    print(f"[bench] {words}", flush=True)


def bound(pairs: int, rare: float = 0.01) -> int:
    """The fewest accusations that chance brings in less than one case in a hundred, less one."""
    tail, most = 1.0, -1
    while tail >= rare:
        most += 1
        tail -= math.comb(pairs, most) * CHANCE**most * (1 - CHANCE) ** (pairs - most)
    return most


def post(platform: Platform, path: str, **body: Any) -> dict[str, Any]:
    """What the API makes of this."""
    answer = platform.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def upload(platform: Platform, data: bytes, purpose: str = "batch") -> str:
    """A file's id."""
    answer = platform.http.post("/files", files={"file": ("f.jsonl", data)}, data={"purpose": purpose})
    return str(answer.raise_for_status().json()["id"])


def ended(platform: Platform, path: str, seconds: float = 1_800.0) -> dict[str, Any]:
    """A run or comparison once it is completed."""
    seen: list[dict[str, Any]] = [{}]

    def look() -> bool:
        seen[0] = platform.http.get(path).raise_for_status().json()
        return seen[0]["status"] in ("completed", "failed", "cancelled")

    until(look, lambda: f"the end of {seen[0]}", seconds)
    assert seen[0]["status"] == "completed", seen[0]
    return seen[0]


def questions() -> list[dict[str, Any]]:
    """The lines of the eval."""
    return [chat(f"line-{n}", f"Question {n}: say something about {n * 37 % 101}.") for n in range(LINES)]


def compared(platform: Platform, eval: str, baseline: str, candidate: str) -> dict[str, Any]:
    """The only scorer's line of a comparison."""
    pair = {"baseline_run_id": baseline, "candidate_run_id": candidate}
    made = post(platform, f"/evals/{eval}/comparisons", **pair)
    return dict(ended(platform, f"/evals/{eval}/comparisons/{made['id']}")["scores"][0])


def drawn(seed: int) -> list[dict[str, Any]]:
    """The same lines, each with a sampling seed of its own: lines that share one share their luck."""
    body = {"temperature": 1.0, "max_tokens": _TOKENS}
    lines = questions()
    return [one | {"body": one["body"] | body | {"seed": seed * LINES + n}} for n, one in enumerate(lines)]


def pairs(platform: Platform) -> dict[str, Any]:
    """40 pairs that differ in their seeds only."""
    file = upload(platform, jsonl(questions()))
    letters = [{"type": "regex", "name": letter, "pattern": letter} for letter in _LETTERS]
    first = post(platform, "/evals", name="which letter", input_file_id=file, scorers=letters)["id"]
    tried = post(platform, f"/evals/{first}/runs", model="tiny", set={"temperature": 1.0, "max_tokens": _TOKENS})
    scores = ended(platform, f"/evals/{first}/runs/{tried['id']}")["scores"]
    letter = min(scores, key=lambda score: abs(score["mean"] - 0.5))["name"]
    scorer = {"type": "regex", "name": "letter", "pattern": letter}
    eval = post(platform, "/evals", name="pairs", scorers=[scorer])["id"]
    began = time.monotonic()
    batches = [platform.submit(drawn(seed)).id for seed in range(2 * PAIRS)]
    for batch in batches:
        platform.ended(batch, 1_800)
    say(f"{len(batches)} batches of {LINES} lines in {time.monotonic() - began:.0f} s; the letter is {letter!r}")
    path, began = f"/evals/{eval}/runs", time.monotonic()
    asked = [post(platform, path, batch_id=batch)["id"] for batch in batches]
    runs = [ended(platform, f"{path}/{id}") for id in asked]
    say(f"{len(runs)} runs in {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    found = [compared(platform, eval, *asked[2 * n : 2 * n + 2]) for n in range(PAIRS)]
    means = [run["scores"][0]["mean"] for run in runs]
    return {
        "pairs": PAIRS,
        "accused": sum(one["verdict"] != "no_difference_shown" for one in found),
        "bound": bound(PAIRS),
        "mean": round(sum(means) / len(means), 3),
        "differing_lines": round(sum(one["better"] + one["worse"] for one in found) / PAIRS, 1),
        "half_width": round(sum((one["high"] - one["low"]) / 2 for one in found) / PAIRS, 4),
        "comparison_ms": round((time.monotonic() - began) / PAIRS * 1_000),
    }


def planted(platform: Platform) -> dict[str, Any]:
    """Five points lost, beside what float32 makes of the same greedy lines in another batch."""
    greedy = {"temperature": 0, "max_tokens": _TOKENS}
    lines = [line | {"body": line["body"] | greedy} for line in questions()]
    batch = platform.ended(platform.submit(lines).id, 600)
    answers = {one["custom_id"]: one for one in platform.file(batch.output_file_id)}
    texts = {id: one["response"]["body"]["choices"][0]["message"]["content"] for id, one in answers.items()}
    references = jsonl([{"custom_id": id, "expected": text} for id, text in texts.items()])
    asked = {
        "input_file_id": upload(platform, jsonl(lines)),
        "reference_file_id": upload(platform, references, "evals"),
        "scorers": [{"type": "exact", "name": "exact"}],
    }
    eval = post(platform, "/evals", name="planted", **asked)["id"]
    baseline = post(platform, f"/evals/{eval}/runs", model="tiny")["id"]
    ended(platform, f"/evals/{eval}/runs/{baseline}")
    for number in range(7, LINES, LINES // PLANTED):
        lines[number] = lines[number] | {"body": lines[number]["body"] | {"max_tokens": 1}}
    worse = platform.ended(platform.submit(lines).id, 600)
    candidate = post(platform, f"/evals/{eval}/runs", batch_id=worse.id)["id"]
    ended(platform, f"/evals/{eval}/runs/{candidate}")
    return compared(platform, eval, baseline, candidate)


def _many(count: int, line: Callable[[int], dict[str, Any]]) -> Iterator[bytes]:
    for number in range(count):
        yield json.dumps(line(number)).encode() + b"\n"


def _written(blobs: Blobs, key: str, lines: Iterator[bytes]) -> int:
    size = 0
    with blobs.writer(key) as file:
        for line in lines:
            file.write(line)
            size += len(line)
    return size


def _answer(number: int, right: int) -> dict[str, Any]:
    text = f"label {number % 7}" if number % 100 < right else "something else"
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text + ", and why" * 20}}]}
    return {
        "id": f"batch_req_{number}",
        "custom_id": f"line-{number * 7_919 % 1_000_003}",
        "response": {"status_code": 200, "request_id": "r", "body": body},
        "error": None,
    }


def ended_batch(platform: Platform, count: int, right: int) -> str:
    """A batch of so many lines that has ended, put there behind the platform's back."""
    blobs, id = Blobs(f"file://{platform.data / 'blobs'}"), f"batch_bench{right}"
    asked = {"method": "POST", "url": "/v1/chat/completions", "body": {"model": "tiny", "messages": []}}
    keys = {kind: f"default/files/{kind}-{right}" for kind in ("in", "out")}
    sizes = {
        "in": _written(
            blobs,
            keys["in"],
            _many(
                count, lambda n: {"custom_id": f"line-{n * 7_919 % 1_000_003}", "expected": f"label {n % 7}"} | asked
            ),
        ),
        "out": _written(blobs, keys["out"], _many(count, lambda n: _answer(n, right))),
    }
    with psycopg.connect(postgres.url(platform.runtime / "postgres"), autocommit=True) as connection:
        for kind, purpose in (("in", "batch"), ("out", "batch_output")):
            connection.execute(
                "insert into files (id, tenant, purpose, filename, bytes, sha256, blob_key)"
                " values (%s, 'default', %s, 'f', %s, %s, %s)",
                (f"file-{kind}-{right}", purpose, sizes[kind], bytes(32), keys[kind]),
            )
        connection.execute(
            "insert into batches (id, tenant, kind, inline, state, finish_as, endpoint, lane, completion_window,"
            " deadline, input_file, input_key, output_file, total, completed, plan_key, model, in_progress_at,"
            " finalizing_at, completed_at) values (%s, 'default', 'batch', false, 'completed', 'completed',"
            " '/v1/chat/completions', 'standard', '24h', now() + interval '1 day', %s, %s, %s, %s, %s, 'none', 'tiny',"
            " now(), now(), now())",
            (id, f"file-in-{right}", keys["in"], f"file-out-{right}", count, count),
        )
    return id


def peak_mib(pid: int) -> float:
    """The most memory that a process ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmHWM"))


def scale(platform: Platform, count: int) -> dict[str, Any]:
    """Two runs over so many lines, and their comparison."""
    pid = platform.child("io").pid
    before = peak_mib(pid)
    scorers = [
        {"type": "exact", "name": "exact", "extract": r"^([^,]+)"},
        {"type": "regex", "name": "regex", "pattern": "label [0-6]"},
    ]
    eval = post(platform, "/evals", name="scale", scorers=scorers)["id"]
    runs, seconds = [], []
    for right in (90, 89):
        batch = ended_batch(platform, count, right)
        began = time.monotonic()
        made = post(platform, f"/evals/{eval}/runs", batch_id=batch)["id"]
        runs.append(ended(platform, f"/evals/{eval}/runs/{made}"))
        seconds.append(time.monotonic() - began)
        say(f"{count:,} lines scored in {seconds[-1]:.0f} s; the io worker has had {peak_mib(pid):.0f} MiB")
    began = time.monotonic()
    found = compared(platform, eval, runs[0]["id"], runs[1]["id"])
    return {
        "lines": count,
        "scored_lines_per_second": round(count / min(seconds)),
        "compared_lines_per_second": round(count / (time.monotonic() - began)),
        "io_worker_mib_before": before,
        "io_worker_mib": peak_mib(pid),
        "difference": found["difference"],
        "low": found["low"],
        "high": found["high"],
    }


def main() -> None:
    """Do the parts that are asked for, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=("pairs", "planted", "scale"), default=["pairs", "planted", "scale"]
    )
    parser.add_argument("--lines", type=int, default=1_000_000, help="of `scale`")
    parser.add_argument("--json", type=Path, default=Path("data/bench-evals.json"))
    given = parser.parse_args()
    told, found = result.begin(given), {}
    folder = Path(tempfile.mkdtemp(prefix="ps-"))
    try:
        if {"pairs", "planted"} & set(given.parts):
            engine = ("--dtype=float32", "--max-model-len=512", "--max-num-seqs=32")
            with up(folder / "v", *(f"--engine-arg={one}" for one in engine), ready_seconds=600) as platform:
                for name, part in (("planted", planted), ("pairs", pairs)):
                    if name in given.parts:
                        found[name] = part(platform)
                        say(f"{name}: {json.dumps(found[name])}")
        if "scale" in given.parts:
            with up(folder / "e", "--engine=echo", ready_seconds=600, max_file_lines="2000000") as platform:
                found["scale"] = scale(platform, given.lines)
                say(f"scale: {json.dumps(found['scale'])}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result.write(given.json, told | found)
    table = Table("part", "what", "", title="Evals")
    for name, part in found.items():
        for what, value in part.items():
            table.add_row(name, what.replace("_", " "), str(value))
    Console(width=100).print(table)
    accused = "pairs" in found and found["pairs"]["accused"] > found["pairs"]["bound"]
    missed = "planted" in found and found["planted"]["verdict"] != "worse"
    if accused or missed:
        sys.exit("[bench] a verdict is wrong more often than it says")


if __name__ == "__main__":
    stop.orderly(main)
