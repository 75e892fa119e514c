"""What ends a command that works: SIGINT, SIGTERM, and a terminal that closes, unless nohup says that it may."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_CODE = """
import os, signal, sys
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[2]))  # as it is when `nohup` began it, or nobody did
from penstock.cli.commands.up import stopping_on_signals
with stopping_on_signals(print):
    os.kill(os.getpid(), int(sys.argv[1]))
    print("goes on")
"""


@pytest.mark.parametrize(
    ("hangup", "number", "said"),
    [
        ("SIG_DFL", signal.SIGHUP, "stopped (SIGHUP)"),
        ("SIG_IGN", signal.SIGHUP, "goes on"),
        ("SIG_IGN", signal.SIGTERM, "stopped (SIGTERM)"),
    ],
)
def test_a_hangup_ends_it_unless_it_is_ignored(hangup: str, number: int, said: str) -> None:
    command = [sys.executable, "-c", _CODE, str(int(number)), hangup]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == (f"{said}\n", 0), done.stderr
