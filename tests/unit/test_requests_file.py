"""A run's file in parts: each line has one place on the way out, and the same one on the way back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.places.sidecar import Part
from penstock.cli.runs import output
from penstock.cli.runs.requests_file import placed, survey, write_part
from penstock.stack.problem import Problem

CHAT, EMBED, SCORE = "/v1/chat/completions", "/v1/embeddings", "/v1/score"


def line(custom_id: str, url: str = CHAT, **more: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": {}, **more})


def written(folder: Path, lines: Sequence[str]) -> Path:
    file = folder / "in.jsonl"
    file.write_text("".join(f"{one}\n" for one in lines))
    return file


def parts(file: Path, most_lines: int = 1_000, most_bytes: int = 1_000_000) -> list[tuple[str, int]]:
    return [(part.endpoint, part.lines) for part in survey(file, most_lines, most_bytes).parts]


def results(folder: Path, number: int, answered: Sequence[str], failed: Sequence[dict[str, Any]]) -> tuple[Path, Path]:
    """A part's files as a server would give them."""
    good, bad = folder / f"{number}.answers", folder / f"{number}.errors"
    good.write_text("".join(json.dumps({"custom_id": one, "error": None}) + "\n" for one in answered))
    bad.write_text("".join(json.dumps(one) + "\n" for one in failed))
    return good, bad


def ids(file: Path) -> list[str | None]:
    return [json.loads(one)["custom_id"] for one in file.read_text().splitlines()]


def test_each_endpoint_is_a_part_under_the_name_that_the_table_has(tmp_path: Path) -> None:
    file = written(tmp_path, [line("a"), line("b", EMBED), line("c", "/score"), line("d", SCORE), line("e")])
    assert parts(file) == [(CHAT, 2), (EMBED, 1), (SCORE, 2)]


def test_a_part_is_as_long_as_a_batch_may_be(tmp_path: Path) -> None:
    file = written(tmp_path, [line(f"{n}") for n in range(5)])
    assert parts(file, most_lines=2) == [(CHAT, 2), (CHAT, 2), (CHAT, 1)]
    assert parts(file, most_bytes=2 * len(line("0")) + 2) == [(CHAT, 2), (CHAT, 2), (CHAT, 1)]


def test_lines_of_one_part_are_known_by_their_physical_numbers_and_of_several_by_their_place(tmp_path: Path) -> None:
    file = written(tmp_path, ["", line("a"), "", line("b"), line("c", EMBED), line("d")])
    found = survey(file, 10, 10_000).parts
    assert [(at, number) for at, number, _ in placed(file, found)] == [(0, 1), (0, 2), (1, 1), (0, 3)]
    alone = survey(written(tmp_path, ["", line("a"), "", line("b")]), 10, 10_000).parts
    assert [number for _, number, _ in placed(file, alone)] == [2, 4]


def test_each_part_is_written_as_a_file_of_its_lines_and_a_file_of_one_part_is_sent_as_it_is(tmp_path: Path) -> None:
    file = written(tmp_path, [line("a"), line("b", EMBED), line("c")])
    found = survey(file, 10, 10_000).parts
    assert [ids(write_part(file, found, n, tmp_path / "part")) for n in range(2)] == [["a", "c"], ["b"]]
    assert write_part(file, found[:1], 0, tmp_path / "part") == file


def test_a_packed_file_is_read_as_it_will_be_at_the_server(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl.gz"
    file.write_bytes(gzip.compress(f"{line('a')}\n{line('b', EMBED)}\n".encode()))
    assert parts(file) == [(CHAT, 1), (EMBED, 1)]


def test_the_first_line_that_no_batch_can_ask_is_known_by_its_number_and_fault(tmp_path: Path) -> None:
    found = survey(written(tmp_path, [line("a"), line("b", "/v1/audio/speech"), "{"]), 10, 10_000).odd
    assert found is not None
    assert (found.number, "/v1/audio/speech" in found.fault) == (2, True)
    assert survey(written(tmp_path, [line("a")]), 10, 10_000).odd is None


def test_a_file_that_asks_nothing_batches_can_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="/v1/audio/speech, which no batch can"):
        survey(written(tmp_path, [line("a", "/v1/audio/speech")]), 10, 10_000)


def test_the_output_is_in_input_order_over_all_parts_with_failed_lines_in_their_places(tmp_path: Path) -> None:
    file = written(tmp_path, [line("a"), line("b", EMBED), line("c"), line("d", EMBED), line("e")])
    found = survey(file, 10, 10_000).parts
    got = [results(tmp_path, 0, ["a", "e"], [{"custom_id": "c"}]), results(tmp_path, 1, ["b", "d"], [])]
    counts = output.write(file, found, got, tmp_path / "out", None)
    assert (ids(tmp_path / "out"), str(counts)) == (list("abcde"), "4 answered, 1 failed")
    output.write(file, found, got, tmp_path / "out", tmp_path / "errors")
    assert (ids(tmp_path / "out"), ids(tmp_path / "errors")) == (list("abde"), ["c"])


def test_lines_that_were_refused_stand_by_their_numbers_where_a_custom_id_comes_twice_or_is_none(
    tmp_path: Path,
) -> None:
    file = written(tmp_path, [line("a", body=1), line("a"), "no json", line("a")])
    refused = [{"custom_id": one, "error": {"code": "x", "line": n}} for n, one in ((1, "a"), (3, None), (4, "a"))]
    got = [results(tmp_path, 0, ["a"], refused)]
    output.write(file, [Part(CHAT, 4)], got, tmp_path / "out", None)
    rows = [json.loads(one) for one in (tmp_path / "out").read_text().splitlines()]
    assert [(row["error"] or {}).get("line") for row in rows] == [1, None, 3, 4]


def test_a_line_without_a_result_leaves_no_output(tmp_path: Path) -> None:
    file = written(tmp_path, [line("a"), line("b")])
    with pytest.raises(Problem, match=r"Line 2 of .* has no result"):
        output.write(file, [Part(CHAT, 2)], [results(tmp_path, 0, ["a"], [])], tmp_path / "out", None)
    assert not (tmp_path / "out").exists()
