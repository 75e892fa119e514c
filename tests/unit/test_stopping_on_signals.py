"""What ends a command that works: SIGINT, SIGTERM, and a terminal that closes, unless nohup says that it may."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_CODE = """
import os, signal, sys
from penstock.cli.commands.up import stopping_on_signals
with stopping_on_signals(print):
    os.kill(os.getpid(), int(sys.argv[1]))
    print("goes on")
"""


@pytest.mark.parametrize(
    ("before", "number", "said"),
    [
        ("", signal.SIGHUP, "stopped (SIGHUP)"),
        ("trap '' HUP; ", signal.SIGHUP, "goes on"),
        ("trap '' HUP; ", signal.SIGTERM, "stopped (SIGTERM)"),
    ],
)
def test_a_hangup_ends_it_unless_it_is_ignored(before: str, number: int, said: str) -> None:
    script = f'{before}exec "$0" -c "$1" "$2"'
    done = subprocess.run(["sh", "-c", script, sys.executable, _CODE, str(int(number))], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == (f"{said}\n", 0), done.stderr
