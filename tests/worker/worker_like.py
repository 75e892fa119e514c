"""A process that owns an engine as a worker does, for tests that kill it: says what it has, then waits.

python worker_like.py KIND MODEL SOURCE FOLDER [ENGINE-ARG…]
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from penstock_worker.engine import kind
from penstock_worker.engine.process.supervisor import EngineState, Supervisor


def main(engine: str, model: str, source: str, folder: Path, arguments: list[str]) -> None:
    """Start the engine, and another child beside it that must not hold the guard's line open."""
    launch = kind.launch(
        engine,
        model=model,
        source=source,
        socket=folder / "e.sock",
        arguments=arguments,
        environ=os.environ,
        python=sys.executable,
    )
    with Supervisor(launch, runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
        bystander = subprocess.Popen(["sleep", "1000"], close_fds=False, stdout=subprocess.DEVNULL)
        while supervisor.state is not EngineState.READY:  # whoever started this waits for so long
            time.sleep(0.05)
        pids = [process.pid for process in supervisor.processes]
        print(json.dumps({"bystander": bystander.pid, "engine": pids}), flush=True)
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]), sys.argv[5:])
