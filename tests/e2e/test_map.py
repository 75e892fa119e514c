"""`penstock map` against a live platform: rows, order and columns come out exact, however often it was killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e.live import PENSTOCK, Platform, until

from penstock_worker.engine.echo.schema_answers import fitting

pytestmark = pytest.mark.timeout(300)

SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad"]},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "echo": {"type": "string", "pattern": "^row"},
    },
    "required": ["mood", "score", "echo"],
}
Map = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(platform: Platform, tmp_path: Path) -> Map:
    """Start the command in a folder of its own, as a client of the platform."""
    environment = {name: value for name, value in platform.environment.items() if name != "PENSTOCK_API_KEY"}

    def start(*arguments: str | Path, stdin: Path | None = None) -> subprocess.Popen[str]:
        where = ["--server", platform.url, "--data", str(platform.data), "--model", "tiny"]
        command = [PENSTOCK, "map", *map(str, arguments), *([] if "--server" in arguments else where)]
        with (stdin or Path(os.devnull)).open() as given:
            return subprocess.Popen(
                command, cwd=tmp_path, env=environment, text=True,
                stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip

    return start


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status, and what it said."""
    out, err = process.communicate(timeout=120)
    assert out == ""
    assert "Traceback" not in err
    return process.returncode, err


def heard(process: subprocess.Popen[str], words: str) -> None:
    """Wait until it says this."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return
    raise AssertionError(f"it ended without {words!r}: {''.join(said)}")


def batches(platform: Platform) -> set[str]:
    """All batches that there are."""
    return {batch.id for batch in platform.sdk.batches.list(limit=100)}


@contextmanager
def resting(platform: Platform) -> Iterator[None]:
    """The platform's worker takes no work meanwhile."""
    workers = platform.http.get("/workers").json()["data"]
    (gpu,) = (one for one in workers if one["kind"] == "gpu" and one["state"] == "ready")
    worker = f"/workers/{gpu['id']}"
    platform.http.post(f"{worker}/drain").raise_for_status()
    try:
        until(lambda: platform.http.get(worker).json()["state"] == "drained", "it rests")
        yield
    finally:
        platform.http.post(f"{worker}/undrain").raise_for_status()


def test_a_csv_is_cut_killed_and_joined_again_without_a_row_lost_or_asked_twice(
    platform: Platform, start: Map, tmp_path: Path
) -> None:
    texts = [f'row {n}, "quoted"\nand more' if n % 7 == 0 else f"row {n}" for n in range(600)]
    texts[100], texts[450] = "row [[status 400]]", "not what the pattern wants"
    with (tmp_path / "t.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["id", "the text"], *enumerate(texts)])
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    command = (
        "t.csv", "--prompt", "{{ row['the text'] }}", "--schema", "s.json", "-o", "o.csv", "--batch-lines", "200",
    )  # fmt: skip
    before = batches(platform)

    killed = start(*command)
    heard(killed, "sent 200 of 600 rows")
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=30)
    assert not (tmp_path / "o.csv").exists()
    status, said = ended(start(*command))
    assert status == 3, said
    assert "wrote o.csv: 600 rows, 598 answered, 2 failed (why: error)" in said

    with (tmp_path / "o.csv").open(newline="") as file:
        rows = list(csv.reader(file, delimiter=";"))
    assert rows[0] == ["id", "the text", "mood", "score", "echo", "error"]
    wanted = [[str(n), text, *map(str, json.loads(fitting(SCHEMA, text)).values()), ""] for n, text in enumerate(texts)]
    wanted[100][2:] = ["", "", "", "400: The script says 400."]
    wanted[450][2:] = ["", "", "", "schema: $.echo: 'not what the pattern wants' does not match '^row'"]
    assert rows[1:] == wanted
    assert len(batches(platform) - before) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["o.csv", "o.csv.penstock.json", "s.json", "t.csv"]

    assert ended(start(*command)) == (3, "[map] o.csv is written already; --fresh asks again\n")
    status, said = ended(start(*command, "--max-tokens", "5"))
    assert (status, said.count("\n")) == (1, 1)
    assert "o.csv was begun with another --max-tokens" in said


def test_parquet_keeps_its_types_and_a_sample_is_spread_over_it(start: Map, tmp_path: Path) -> None:
    table = pa.table({"n": pa.array(range(300), pa.int16()), "text": [f"row {n}" for n in range(300)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=64)
    (tmp_path / "moods.py").write_text(
        "from typing import Literal\nfrom pydantic import BaseModel\n"
        "class Mood(BaseModel):\n    mood: Literal['good', 'bad']\n    score: float\n"
    )
    command = ("t.parquet", "--prompt", "{{ text }}", "--schema", "moods.py:Mood", "-o", "o.parquet", "--sample", "30")
    assert ended(start(*command))[0] == 0
    found = pq.read_table(tmp_path / "o.parquet")
    assert found.schema.types == [pa.int16(), pa.string(), pa.string(), pa.float64(), pa.string()]
    assert [n // 10 for n in found.column("n").to_pylist()] == list(range(30))
    assert found.column("text").to_pylist() == [f"row {n}" for n in found.column("n").to_pylist()]
    assert set(found.column("mood").to_pylist()) == {"good", "bad"}
    assert set(found.column("error").to_pylist()) == {None}


def test_jsonl_comes_through_stdin_and_a_row_without_a_prompt_fails_alone(start: Map, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": 2, "who": "Bo"}, {"a": 0}, {"who": None, "a": 4}]
    (tmp_path / "in").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("-", "--format", "jsonl", "--prompt", "{{ who }} has {{ 8 // a }}", "-o", "o.jsonl", "--column", "said")
    status, said = ended(start(*command, stdin=tmp_path / "in"))
    assert status == 3, said
    assert [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()] == [
        {"a": 2, "who": "Bo", "said": "Bo has 4", "error": None},
        {"a": 0, "who": None, "said": None, "error": "template: ZeroDivisionError: integer division or modulo by zero"},
        {"a": 4, "who": None, "said": " has 2", "error": None},
    ]
    assert not (tmp_path / "o.jsonl.table").exists()


def test_ctrl_c_says_how_to_go_on_and_the_batch_goes_on_meanwhile(
    platform: Platform, start: Map, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("text\n[[sleep 1500]]\n")
    command = ("t.csv", "--prompt", "{{ text }}", "-o", "o.csv")
    before = batches(platform)
    process = start(*command)
    heard(process, "sent 1 of 1 rows")
    process.send_signal(signal.SIGINT)
    status, said = ended(process)
    assert status == 130
    assert "the same command goes on; meanwhile its batches run" in said
    (mine,) = batches(platform) - before
    assert platform.ended(mine).status == "completed"
    assert ended(start(*command))[0] == 0
    assert (tmp_path / "o.csv").read_text() == "text,answer,error\n[[sleep 1500]],[[sleep 1500]],\n"
    assert batches(platform) - before == {mine}


def test_mistakes_are_one_line_and_nothing_is_sent(platform: Platform, start: Map, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\na\n")
    (tmp_path / "empty.csv").write_text("text\n")
    (tmp_path / "there.csv").write_text("mine\n")
    before = batches(platform)
    elsewhere = ("--server", platform.url, "--data", str(platform.data), "--model", "nope")
    cases = {
        ("--prompt", "{{ txt }}", "-o", "1.csv"): "did you mean {{ text }}?",
        ("--prompt", "{{ text }}", "-o", "there.csv"): "there.csv is there, and not from this command",
        ("--prompt", "{{ text }}", "-o", "2.csv", *elsewhere): "has no model 'nope': it has ",
        ("--prompt", "{{ 1 / 0 }}", "-o", "3.csv"): "No row makes a prompt; the first: template: ZeroDivisionError",
    }
    started = {words: start("t.csv", *arguments) for arguments, words in cases.items()}
    for words, process in started.items():
        status, said = ended(process)
        assert (status, said.count("\n")) == (1, 1), said
        assert words in said
    assert ended(start("empty.csv", "--prompt", "{{ text }}", "-o", "4.csv"))[0] == 0
    assert (tmp_path / "4.csv").read_text() == "text,answer,error\n"
    assert (tmp_path / "there.csv").read_text() == "mine\n"
    assert batches(platform) == before


def test_two_commands_do_not_write_one_table(start: Map, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\n[[sleep 1000]]\n")
    command = ("t.csv", "--prompt", "{{ text }}", "-o", "o.csv")
    first = start(*command)
    until(lambda: (tmp_path / "o.csv.part").exists(), "the first has its lock")
    heard(first, "sent 1 of 1 rows")
    first.send_signal(signal.SIGSTOP)  # however long the second takes to start
    try:
        status, said = ended(start(*command))
    finally:
        first.send_signal(signal.SIGCONT)
    assert status == 1
    assert "Another command writes o.csv.part" in said
    assert ended(first)[0] == 0


@pytest.mark.slow
def test_rows_without_an_answer_are_asked_again_when_that_is_said(
    platform: Platform, start: Map, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("text\nfirst\n" + "other\n" * 40)
    command = ("t.csv", "--prompt", "{{ text }}", "-o", "o.csv")
    before = batches(platform)
    with resting(platform):
        process = start(*command)
        heard(process, "sent 41 of 41 rows")
        (mine,) = batches(platform) - before
        until(lambda: platform.sdk.batches.retrieve(mine).status == "in_progress", "it is planned")
        platform.http.post(f"/batches/{mine}/cancel").raise_for_status()
        assert ended(process)[0] == 3
    assert ended(start(*command, "--retry-failed"))[0] == 0
    with (tmp_path / "o.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["answer"] for row in rows] == [row["text"] for row in rows]
    assert ended(start(*command, "--retry-failed")) == (0, "[map] o.csv is written already; --fresh asks again\n")
