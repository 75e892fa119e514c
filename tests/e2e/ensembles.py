"""What tests of ensembles through a whole platform have in common: a further worker, and ensembles as operators add."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.live import PENSTOCK, Platform, until


@contextmanager
def worker(
    platform: Platform, model: str, log: Path, *flags: str, seconds: float = 60
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of `name=source` beside the platform's own, once it takes calls; it may be dead at the end."""
    with log.open("wb") as output:
        command = [PENSTOCK, "worker", "--model", model, *flags]
        process = subprocess.Popen(command, env=platform.child("api").environ(), stdout=output, stderr=output)
    try:
        ready = "select count(*) from workers where open and model = %s"
        name = model.partition("=")[0]
        until(lambda: platform.ask(ready, name) or process.poll() is not None, log.read_text, seconds)
        assert process.poll() is None, log.read_text()[-3_000:]
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def penstock(platform: Platform, *arguments: str) -> str:
    """What `penstock ensembles …` prints."""
    command = [PENSTOCK, "ensembles", *arguments, "--data", str(platform.data), "--url", platform.url]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(platform.environment), check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def add(platform: Platform, definition: dict[str, Any]) -> None:
    """Add one, or its next version."""
    file = platform.data / f"{definition['name']}.json"
    file.write_text(json.dumps(definition))
    penstock(platform, "add", str(file))
