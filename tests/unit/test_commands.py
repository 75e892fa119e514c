"""Commands: imported on demand, listed with the words of their own help, with examples that are right, in one style."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from penstock.cli.main import COMMANDS, app, load
from penstock.cli.reference import commands, page

ROOT = Path(__file__).parents[2]
ALL: dict[str, Any] = dict(commands())
PENSTOCK = str(Path(sys.executable).with_name("penstock"))
PROCESSES = {"up", "demo", "migrate", "api", "keeper", "io", "worker"}
BYTES = {"batches results", "jobs results", "files download", "secrets new-key"}
WORKS = {"run", "map"}
"""They say how far they are, and write files."""
HEAVY = ("sqlalchemy", "httpx", "pydantic", "structlog", "msgspec", "numpy", "fastapi", "rich", "openai")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_with_the_words_of_its_own_help(name: str) -> None:
    said = load(name).help.partition("\n\n")[0]
    assert " ".join(said.split()) == COMMANDS[name][1]


def heavy(code: str) -> list[str]:
    """Which heavy modules are there after this code."""
    code = f"import sys; {code}\nprint([name for name in sys.modules if name in {HEAVY!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return list(ast.literal_eval(done.stdout.splitlines()[-1]))


def test_the_list_of_commands_imports_none_of_them() -> None:
    assert heavy("from penstock.cli.main import app; app(['--help'], standalone_mode=False)") == []


def test_what_is_said_of_all_commands_imports_nothing_that_they_work_with() -> None:
    """Completion loads the family that it completes, and no more than this."""
    assert heavy("from penstock.cli.reference import commands; list(commands())") == []


@pytest.mark.parametrize("typed", ["penstock ", "penstock keys ", "penstock batches submit --"])
def test_completion_imports_no_more_either(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    monkeypatch.setenv("_PENSTOCK_COMPLETE", "complete_bash")
    code = "import contextlib; from penstock.cli.main import app\nwith contextlib.suppress(SystemExit): app()"
    assert heavy(code.replace("app()", "app(prog_name='penstock')")) == []


def test_a_name_that_is_nearly_a_command_is_told_which() -> None:
    for arguments, like in (
        (["batchs"], "Did you mean 'batches'?"),
        (["jobs", "submt"], "Did you mean 'submit'?"),
        (["batches", "list", "--jsn"], "--json"),
        (["batches", "submit", "in.jsonl", "--lane", "prio"], "Did you mean 'priority'?"),
        (["tenants", "cache", "acme", "onn"], "Did you mean 'on'?"),
        (["up", "--engine", "olama"], "Did you mean 'ollama'?"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert (done.exit_code, like in done.output) == (2, True), done.output
        assert "Value error" not in done.output


def test_the_version_is_told() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output.split()[0]) == (0, "penstock")


def test_whoever_prints_facts_prints_them_as_json_too() -> None:
    without = {name for name, one in ALL.items() if "--json" not in {opt for param in one.params for opt in param.opts}}
    assert without - WORKS == PROCESSES | BYTES


def test_there_is_one_json_option() -> None:
    options = [param for one in ALL.values() for param in one.params if "--json" in param.opts]
    assert len({param.help for param in options}) == 1


@pytest.mark.parametrize("name", ALL)
def test_the_help_of_a_command_has_examples_that_it_takes(name: str) -> None:
    told = CliRunner().invoke(app, [*name.split(), "--help"])
    assert told.exit_code == 0
    lines = (told.stdout.partition("Examples:")[2] or told.stdout).splitlines()
    examples = [line.strip() for line in lines if re.match(r"\s+([A-Z_]+=\S+ |cat .*[|] )?penstock ", line)]
    assert examples, "penstock.cli.examples has none, and its own help neither"
    for part in (part for line in examples for part in re.split("&&|[|]", line)):
        words = shlex.split(re.sub(r"^(\s*[A-Z_]+=\S+)+|>.*", "", part))
        if words[:1] == ["penstock"]:
            family, *rest = words[1:]
            command = ALL[family] if family in ALL else ALL[f"{family} {rest.pop(0)}"]
            command.make_context("penstock", rest)  # raises what it does not know


def test_the_page_of_commands_is_what_they_say() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == page(), "run: make docs"


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("penstock ba", ["batches"]),
        ("penstock jobs re", ["results", "resume", "retry"]),
        ("penstock keys create x --exp", ["--expires-in"]),
        ("penstock batches submit in.jsonl --lane ", ["flex", "priority", "standard"]),
    ],
)
def test_bash_completes_commands_of_families_options_and_their_values(typed: str, wanted: list[str]) -> None:
    words = [PENSTOCK, *typed.split(" ")[1:]]
    script = f"""
        eval "$({PENSTOCK} --show-completion bash)"
        COMP_WORDS=({shlex.join(words)})
        COMP_CWORD={len(words) - 1}
        _penstock_completion {PENSTOCK}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert sorted(done.stdout.split()) == wanted, done.stderr


def test_a_worker_takes_its_options_from_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that it becomes has read them once it reads the settings."""
    monkeypatch.setenv("PENSTOCK_LEASE_SECONDS", "0")
    for line in ("io", "worker --model tiny --engine echo --engine-arg=--seed=1 --engine-arg --fast"):
        done = subprocess.run([PENSTOCK, *line.split()], capture_output=True, text=True)
        assert (done.returncode, "PENSTOCK_LEASE_SECONDS is '0'" in done.stderr) == (1, True), done.stderr
    assert CliRunner().invoke(app, ["worker", "--model", "tiny", "--engine", "vlm"]).exit_code == 2
