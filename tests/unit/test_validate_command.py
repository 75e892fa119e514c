"""`penstock validate`: a batch's file is checked without a server, as the server does it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from penstock.cli import input_file
from penstock.cli.main import app
from penstock.formats import input as lines

CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def validated(content: bytes, *options: str) -> Result:
    Path("in.jsonl").write_bytes(content)
    return CliRunner().invoke(app, ["validate", "in.jsonl", *options])


def line(custom_id: str, model: str | None = "tiny", url: str = CHAT) -> bytes:
    return lines.write(custom_id, url, {"messages": []} | ({"model": model} if model else {})) + b"\n"


def test_a_good_file_is_said_to_be_good_packed_too() -> None:
    content = line("a") + b"\n" + line("b", "other")
    for bytes in (content, gzip.compress(content, mtime=0)):
        done = validated(bytes)
        assert (done.exit_code, done.stdout) == (
            0,
            f"in.jsonl: 2 lines are good, for other, tiny at {CHAT}\n",
        )


def test_every_bad_line_is_told_with_its_number_and_reason() -> None:
    content = line("a") + b"{\n" + line("a") + line("b", None) + line("c", url="/v1/embeddings") + line("d")
    done = validated(content)
    assert done.exit_code == 3
    assert done.stdout.splitlines() == [
        "line 2: This line is not parseable as valid JSON. (invalid_json_line)",
        "line 3: custom_id 'a' is on line 1 and on line 3. (duplicate_custom_id)",
        "line 4: Missing required parameter: 'body.model'. (missing_required_parameter)",
        f"line 5: The url of each line must be the batch's endpoint, {CHAT!r}. (url_mismatch)",
    ]
    assert done.stderr == "in.jsonl: 4 lines are bad, 2 are good\n"
    told = json.loads(validated(content, "--json").stdout)
    assert (told["good_lines"], told["errors"]["total"]) == (2, 4)
    assert told["errors"]["data"][0] == {
        "code": "invalid_json_line",
        "message": "This line is not parseable as valid JSON.",
        "param": None,
        "line": 2,
    }
    assert "the first 1 are listed" in validated(content, "--most", "1").stderr


def test_a_model_for_lines_without_one_and_an_endpoint_are_as_in_a_create() -> None:
    assert validated(line("a", None), "--model", "tiny").exit_code == 0
    assert validated(line("a", url="/rerank"), "--endpoint", "/v2/rerank").exit_code == 0, "one endpoint by its names"
    assert validated(line("a"), "--endpoint", "/v1/embeddings").exit_code == 3
    nowhere = validated(line("a"), "--endpoint", "/v1/nowhere")
    assert (nowhere.exit_code, nowhere.stderr.startswith("penstock: No batch asks '/v1/nowhere'")) == (1, True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "in.jsonl is empty"),
        (line("a").decode().encode("utf-16"), "The file is UTF-16, not UTF-8."),
        (gzip.compress(line("a") * 100, mtime=0)[:60], "can't be inflated"),
        (b"\x28\xb5\x2f\xfd" + bytes(8), "The file is compressed with zstd."),
        (b"[1]", "The file is a JSON array"),
    ],
)
def test_what_is_no_file_of_a_batch_is_one_line(content: bytes, words: str) -> None:
    done = validated(content)
    assert (done.exit_code, done.stdout) == (1, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_limits_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_MAX_FILE_LINES", "1")
    done = validated(line("a") + line("b"))
    assert (done.exit_code, done.stdout) == (1, "The file holds more than 1 lines. (too_many_tasks)\n")
    monkeypatch.setenv("PENSTOCK_MAX_FILE_BYTES", "9")
    assert "The file is longer than 9 bytes" in validated(line("a")).stderr


def test_what_is_inflated_is_no_more_than_shows_that_it_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_MAX_FILE_BYTES", "1000000")
    packed = gzip.compress(line("a") + b"\n" * 50_000_000)
    done = validated(packed[: len(packed) // 2])  # whoever goes on meets the end that is missing
    assert "The file is longer than 1,000,000 bytes" in done.output


def test_a_line_of_gigabytes_in_a_few_bytes_of_gzip_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_file, "_MOST_LINE_BYTES", 1_000_000)
    done = validated(gzip.compress(b"x" * 50_000_000))
    assert "Line 1 is longer than 1,000,000 bytes" in done.output
