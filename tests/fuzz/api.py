"""`make fuzz-api`: schemathesis asks a real platform everything that its OpenAPI page has, well meant and not.

The platform is `penstock up` on the simulated engine, with things of each kind made first. What must hold is in
schemathesis.toml: no 5xx, and no status, media type, header, field or method that the page does not have. Each finding
is printed with a command that repeats it; reports are in data/fuzz-api. The exit status is schemathesis's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
from fuzz import things

from penstock.cli.database import opened
from penstock.service.admin import models
from penstock.stack import up as stack
from penstock.stack.ports import free_port

_HERE = Path(__file__).parent
_SCHEMATHESIS = _HERE.parents[1] / ".venv-fuzz" / "bin" / "schemathesis"
_TEND_SECONDS = 0.5


def main() -> None:
    """Start the platform, make things, ask for so long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long to ask")
    parser.add_argument("--seed", type=int, help="to ask the same again, as far as answers allow")
    parser.add_argument("--reports", type=Path, default=Path("data/fuzz-api"))
    parser.add_argument("more", nargs="*", help="after --: options of `schemathesis run`")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="penstock-fuzz-"))
    try:
        with closing(things.Receiver()) as receiver, _platform(folder) as running:
            sys.exit(_ask(running, receiver.url, given))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _platform(folder: Path) -> Iterator[stack.Running]:
    """The platform, whose children are looked after meanwhile."""
    # Nobody waits a minute for an answer that says no more after it; and what goes out goes no further than here.
    settings = {
        "PENSTOCK_MAX_WAIT_SECONDS": "1",
        "PENSTOCK_WEBHOOK_TIMEOUT_SECONDS": "2",
        "PENSTOCK_OUTBOUND_ALLOW": "127.0.0.0/8",
        "PENSTOCK_METRICS_OPEN": "true",
    }
    wish = stack.StackOptions(data=folder / "data", port=free_port(), engine="echo", flower_port=free_port())
    over = threading.Event()
    with stack.platform(wish, os.environ | settings, _say) as running:

        def tend() -> None:
            while not over.wait(_TEND_SECONDS):
                running.tend()

        thread = threading.Thread(target=tend)
        thread.start()
        try:
            yield running
        finally:
            over.set()
            thread.join()


def _ask(running: stack.Running, hook: str, given: argparse.Namespace) -> int:
    with opened(running.layout.data) as db:
        db.run(models.add, things.IDLE)
    headers = {"authorization": f"Bearer {running.key}"}
    with httpx.Client(base_url=running.url, headers=headers, timeout=30, trust_env=False) as client:
        made = things.make(client, hook)
    given.reports.mkdir(parents=True, exist_ok=True)
    command = [
        str(_SCHEMATHESIS), "--config-file", str(_HERE / "schemathesis.toml"),
        "run", f"{running.url}/openapi.json", "--header", f"Authorization: Bearer {running.key}",
        "--max-time", str(round(given.minutes * 60)), "--no-color",
        "--report", "json,ndjson", "--report-dir", str(given.reports),
        *(("--seed", str(given.seed)) if given.seed is not None else ()), *given.more,
    ]  # fmt: skip
    answers = given.reports / "answers.json"
    environment = os.environ | {
        "FUZZ_THINGS": json.dumps(made),
        "FUZZ_ANSWERS": str(answers),
        "SCHEMATHESIS_HOOKS": str(_HERE / "hooks.py"),
    }
    status = subprocess.run(command, env=environment, check=False).returncode
    _tell(json.loads(answers.read_text()))
    return status


def _tell(answers: dict[str, dict[str, int]]) -> None:
    """What the answers were: an operation that never said yes was asked too little."""
    kinds: Counter[str] = Counter()
    for of_one in answers.values():
        for status, count in of_one.items():
            kinds[f"{status[0]}xx"] += count
    never = sorted(name for name, of_one in answers.items() if not any(status[0] == "2" for status in of_one))
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    _say(f"{kinds.total()} answers of {len(answers)} operations: {told}")
    _say(f"never answered with 2xx: {', '.join(never) or 'none'}")


def _say(words: str) -> None:
    print(f"[fuzz] {words}", flush=True)


if __name__ == "__main__":
    main()
