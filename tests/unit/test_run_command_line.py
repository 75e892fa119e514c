"""The command line of `vllm run-batch` is taken apart: ours, the engine's, and what means nothing here."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from penstock.cli.main import app, load
from penstock.cli.runs.command_line import META, PASSED_OVER, SplitLine, split
from penstock.stack.problem import Problem

VALUED, FLAGS = {"-i", "--input-file", "-o", "--output-file", "--model", "--engine-arg"}, {"--fresh"}


def taken_apart(text: str) -> SplitLine:
    return split(text.split(), VALUED, FLAGS)


def test_flags_of_the_engine_go_on_in_their_order_with_the_values_that_follow_them() -> None:
    found = taken_apart("-i in -tp 2 --max-num-seqs=64 --lora-modules a=b c=d --enforce-eager -o out --seed -1 --fresh")
    assert found.ours == ["-i", "in", "-o", "out", "--fresh"]
    assert " ".join(found.engine) == "-tp 2 --max-num-seqs=64 --lora-modules a=b c=d --enforce-eager --seed -1"
    assert found.passed_over == []


@pytest.mark.parametrize("short", ["-dbo", "-q", "-dpi", "-O3", "-cc"])
def test_a_short_flag_of_vllm_that_has_one_of_our_letters_is_the_engines(short: str) -> None:
    assert taken_apart(f"-i in {short} -o out").engine == [short]


def test_underscores_stand_for_hyphens_as_in_vllms_parser() -> None:
    assert taken_apart("--input_file a_b --output_file=c_d").ours == ["--input-file", "a_b", "--output-file=c_d"]


def test_what_means_nothing_here_is_named_and_its_values_go_with_it() -> None:
    line = " ".join(flag + (" x" if valued else "") for flag, valued in PASSED_OVER.items())
    found = taken_apart(f"--model m {line} --dtype float32")
    assert (found.ours, found.engine) == (["--model", "m"], ["--dtype", "float32"])
    assert found.passed_over == list(PASSED_OVER)


@pytest.mark.parametrize("said", ["--served-model-name a b", "--served-model-name=a"])
def test_the_names_that_vllm_would_have_served_are_known(said: str) -> None:
    assert taken_apart(f"{said} --port 90").served_names[0] == "a"


def test_the_commands_own_options_are_those_that_its_parser_has() -> None:
    command = load("run")
    line = "-i in -o out --model m -tp 2 --lane flex --dry-run --host h"
    context = command.make_context("run", line.split())
    assert context.meta[META].engine == ["-tp", "2"]
    assert context.params["lane"] == "flex"
    assert context.params["dry_run"] is True


@pytest.mark.parametrize("slip", ["--retry-faild", "--enginge-arg=x", "--fesh"])
def test_a_slip_of_the_keyboard_is_no_flag_of_the_engine(slip: str) -> None:
    done = CliRunner().invoke(app, ["run", "-i", "in", "-o", "out", "--model", "m", slip])
    assert (done.exit_code, "is it --" in done.output) == (2, True)


def test_a_call_without_a_model_or_an_address_is_one_line() -> None:
    from penstock.cli.places.options import PlaceOptions

    for options in (PlaceOptions(), PlaceOptions(server="http://a", engine_url="http://b")):
        with pytest.raises(Problem, match=r"^Say --"):
            options.check()


def test_the_help_has_command_lines_to_copy() -> None:
    assert load("run").help.count("\npenstock run -i") == 5
