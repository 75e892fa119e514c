"""`make bench-ensembles`: what folding costs: lines of an ensemble of three members against as many plain lines.

One platform on the simulated echo engine. In turn, in the order p e e p: a batch of three times as many plain lines,
and one whose lines a vote of three asks of the same model. Lines that the engine answered in a second, of each; their
ratio; and each process's peak memory after a batch of a quarter of the size and after all.

It measures, and passes no judgement but one: every line comes back once, in order.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path

from bench import control, result, stop
from rich.console import Console

from penstock.cli.database import opened
from penstock.service.ensembles import ensembles
from penstock.stack import ports
from penstock.stack import up as stack

MEMBERS = 3
PANEL = {"name": "panel", "kind": "vote", "members": [{"model": "tiny", "params": {"seed": n}} for n in range(MEMBERS)]}


def main() -> None:
    """Measure, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000, help="of the ensemble's batch")
    parser.add_argument("--repeats", type=int, default=2, help="of p e e p")
    parser.add_argument("--json", type=Path, default=Path("data/bench-ensembles.json"))
    given = parser.parse_args()
    head = result.begin(given) | {"engine": "echo (simulated)"}
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    wish = stack.StackOptions(data=folder / "data", port=ports.preferred_port(8000), engine="echo")
    try:
        with stack.platform(wish, os.environ, lambda words: print(f"[bench] {words}", flush=True)) as running:
            with opened(running.layout.data) as db:
                db.run(ensembles.add, PANEL)
            rates: dict[str, list[float]] = {"plain": [], "ensemble": []}

            def run(arm: str, lines: int) -> float:
                model, times = ("panel", MEMBERS) if arm == "ensemble" else ("tiny", 1)
                found = control.measure(running, lines, folder, model)
                rate = lines * times / float(str(found["seconds"]))
                print(
                    f"[bench] {json.dumps({'arm': arm, 'member_lines_per_second': round(rate, 1)} | found)}", flush=True
                )
                return rate

            for arm in rates:  # warm up, and a first look at memory
                run(arm, given.lines // 4)
            before = control.peak_mib(running)
            for _ in range(given.repeats):
                for arm in ("plain", "ensemble", "ensemble", "plain"):
                    rates[arm].append(run(arm, given.lines * (MEMBERS if arm == "plain" else 1)))
            peaks = control.peak_mib(running)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratio = statistics.median(rates["ensemble"]) / statistics.median(rates["plain"])
    found = {"rates": rates, "ratio": round(ratio, 3), "peak_mib_of_a_quarter": before, "peak_mib": peaks}
    result.write(given.json, head | found)
    Console().print(result.told(head))
    print(f"member lines/s over plain lines/s: {ratio:.2f} (medians; simulated engine)")
    grown = (f"{name} {before.get(name, 0):.0f} -> {peak:.0f}" for name, peak in sorted(peaks.items()))
    print(f"peak MiB after a quarter of the lines, and after all: {', '.join(grown)}")


if __name__ == "__main__":
    stop.orderly(main)
