"""The outlet: whatever standard output is, a command says what it can, and never a page of traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.cli.outlet import visible
from penstock.cli.printing import console, table

PENSTOCK = str(Path(sys.executable).with_name("penstock"))


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert visible("a\x1b]0;title\x07\r\x9b31m\tb\n") == "a\\u001b]0;title\\u0007\\u000d\\u009b31m\tb\n"


@pytest.mark.parametrize("width", [40, 80])
def test_a_table_is_shown_as_it_is_and_its_ids_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    where, id = console(), "batch_01m8m1rhcw8mbwz5rjdwdceaqf"
    with where.capture() as said:
        where.print(table(("id", "model"), [(id, "[/red]\x1b[31m" + "x" * width)]))
    assert f"{id}  [/red]\\u001b[31m{'x' * width}" in said.get()


@pytest.mark.parametrize("command", ["settings --markdown", "settings", "--help"])
def test_an_output_that_is_full_or_closed_is_one_line_or_none(command: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    for redirection, status in ((">/dev/full", 1), (">&-", 0)):
        script = f"exec {PENSTOCK} {command} {redirection}"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stderr.count("\n")) == (status, status), done.stderr


def test_a_reader_that_goes_away_is_not_told_of() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([PENSTOCK, "settings"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
