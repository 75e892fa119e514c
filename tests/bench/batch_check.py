"""`make bench-batch ARGS=--check`: planning, dedup and the cache change when a line is answered, never its answer.

The file mixes those of rows A to D: unique lines, shared prompts, exact copies, answers of very different lengths.
`vllm run-batch` asks in file order and asks everything: that is what all of ours is compared with, line by line. In
float32, since in bf16 a greedy answer can depend on what else is in the engine's step.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from bench import batch_files
from bench.batch_ours import Refused
from bench.batch_run import CACHED

if TYPE_CHECKING:
    from bench.batch_run import Sides

_SHOWN: Final = 5
ARMS: Final[dict[str, dict[str, Any]]] = {
    "as it comes": {},
    "without dedup": {"dedup": False},
    "in file order": {"plan": False},
    "in file order, without dedup": {"plan": False, "dedup": False},
    "cache, first": CACHED,
    "cache, again": CACHED,
    "as it comes, again": {},
}
"""What a create says."""


def lines(both: Sides) -> bytes:
    """A part of each row's file, shuffled together."""
    bench = both.bench
    each = max(1, bench.given.check_lines // 4)
    bodies = [body for row in "ABCD" for body in bench.maker.bodies(row, 0)[:each]]
    # Copies of a row's file are spread over all of it: here are some whose first is here, too.
    bodies += bodies[: each // 2]
    random.Random(bench.given.seed).shuffle(bodies)
    return batch_files.jsonl(bodies)


async def measure(both: Sides) -> None:
    """Run the file on both sides, ours once in each arm, and compare."""
    data = lines(both)
    ran = await both.run_theirs(data)
    expected = batch_files.answers(ran[1]) if ran else {}
    found: dict[str, Any] = {"lines": data.count(b"\n"), "arms": []}
    both.bench.found["check"] = found
    for arm, terms in ARMS.items():
        try:
            done, output = await both.ours.batch(data, **terms)
        except Refused as error:
            found["arms"].append({"arm": arm, "why": str(error)})
        else:
            got = batch_files.answers(output)
            expected = expected or got  # without the other side, all are compared with the first
            found["arms"].append({"arm": arm, **compared(expected, got), "seconds": round(done.seconds, 2)})
        both.bench.say(f"answers, {arm}: {found['arms'][-1]}")
        both.bench.write()


def compared(expected: dict[str, Any], got: dict[str, Any]) -> dict[str, Any]:
    """How many lines have the same answer, and the first that have another or none."""
    differ = [name for name in expected if got.get(name) != expected[name]]
    return {"equal": len(expected) - len(differ), "differ": differ[:_SHOWN]}
