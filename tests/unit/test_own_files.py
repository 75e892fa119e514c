"""A command's own files: OUT and what is made beside it take no other file's place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.cli.own_files import keep_apart, target
from penstock.cli.places import sidecar
from penstock.cli.places.sidecar import part_of
from penstock.cli.results import write
from penstock.stack.problem import Problem


@pytest.mark.parametrize("name", ["out", "out.part", "out.part.new", "out.part.0.answers", "out.penstock.json"])
def test_what_is_read_has_no_name_that_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / name)
    for read in (tmp_path / name, tmp_path / "sub" / ".." / name, tmp_path / "link"):
        with pytest.raises(Problem, match=r"choose another"):
            keep_apart([tmp_path / "out"], [read])
    keep_apart([tmp_path / "out"], [tmp_path / "out.partial", tmp_path / "in"])


def test_two_outputs_are_two_files_and_neither_is_made_for_the_other(tmp_path: Path) -> None:
    for errors in ("out", "out.part", "out.part.new"):
        for pair in ((tmp_path / "out", tmp_path / errors), (tmp_path / errors, tmp_path / "out")):
            with pytest.raises(Problem, match="choose another"):
                keep_apart(pair, [])


def test_an_out_that_can_be_no_plain_file_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name, words in (
        ("folder", "is a folder"),
        ("pipe", "no plain file"),
        ("link", "no plain file"),
        ("no/x", "no fo"),
    ):
        with pytest.raises(Problem, match=words):
            target(tmp_path / name)


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    assert target(tmp_path / "link") == tmp_path / "real"
    write([b"one\n"], tmp_path / "link")
    assert (tmp_path / "real").read_bytes() == b"one\n"
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_results_for_a_device_or_a_pipe_go_into_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write([b"one\n", b"two\n"], tmp_path / "pipe")
        assert (tmp_path / "pipe").is_fifo()
    finally:
        os.close(reader)


def test_results_leave_a_file_alone_that_is_called_as_if_it_were_theirs(tmp_path: Path) -> None:
    (tmp_path / "out.part").write_text("mine")
    write([b"one\n"], tmp_path / "out")
    assert (tmp_path / "out.part").read_text() == "mine"


def test_a_part_that_no_call_of_the_command_began_is_refused(tmp_path: Path) -> None:
    part_of(tmp_path / "out").write_text("mine")
    with sidecar.growing(tmp_path / "out"), pytest.raises(Problem, match=r"out\.part is there, and not from this"):
        sidecar.reopened(tmp_path / "out", {}, fresh=False)
    assert part_of(tmp_path / "out").read_text() == "mine"


def test_a_part_that_was_taken_away_begins_anew_without_a_hole(tmp_path: Path) -> None:
    with sidecar.growing(tmp_path / "out") as growing:
        assert not growing.cut(100)
        growing.add(b"one\n")
    assert part_of(tmp_path / "out").read_bytes() == b"one\n"


def test_whoever_waited_for_a_lock_that_lost_its_name_takes_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ends, and takes its empty file away, between the second's opening and locking it."""
    out, lock, ends = tmp_path / "out", sidecar.fcntl.flock, [lambda: part_of(out).unlink()]

    def flock(*arguments: int) -> None:
        while ends:
            ends.pop()()
        lock(*arguments)

    monkeypatch.setattr(sidecar.fcntl, "flock", flock)
    with sidecar.growing(out), pytest.raises(Problem, match="Another command writes"):
        sidecar.growing(out).__enter__()
