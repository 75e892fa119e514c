"""Commands are imported on demand: what `penstock --help` says of one is what it says of itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from penstock.cli.main import COMMANDS, app, load


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_with_the_words_of_its_own_help(name: str) -> None:
    said = load(name).help.partition("\n\n")[0]
    assert " ".join(said.split()) == COMMANDS[name][1]


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = (
        "import sys; from penstock.cli.main import app; app(['--help'], standalone_mode=False);"
        "print('heavy:', [name for name in sys.modules if name in ('sqlalchemy', 'httpx', 'pydantic', 'structlog')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_a_name_that_is_nearly_a_command_is_told_which() -> None:
    done = CliRunner().invoke(app, ["batchs"])
    assert (done.exit_code, "batches" in done.output) == (2, True)


def test_the_version_is_told() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output.split()[0]) == (0, "penstock")
