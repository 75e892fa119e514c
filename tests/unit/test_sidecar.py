"""The sidecar: what a later call of a command finds of an earlier one, whatever cut that off."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli.places import sidecar
from penstock.cli.places.options import PlaceOptions
from penstock.cli.places.sidecar import Part
from penstock.stack.problem import Problem

IDENTITY = {"input": "1", "--model": "tiny"}


def begun(out: Path) -> sidecar.Sidecar:
    car = sidecar.reopened(out, IDENTITY, fresh=False)
    car.parts = [Part("/v1/embeddings", 3, batch="batch_1")]
    car.save()
    return car


def test_what_was_saved_is_found_again_by_the_same_command(tmp_path: Path) -> None:
    first = begun(tmp_path / "out")
    assert sidecar.reopened(tmp_path / "out", IDENTITY, fresh=False) == first


def test_another_command_is_told_what_differs(tmp_path: Path) -> None:
    begun(tmp_path / "out")
    with pytest.raises(Problem, match=r"begun with another --server, input: .*--fresh"):
        sidecar.reopened(tmp_path / "out", {**IDENTITY, "input": "2", "--server": "http://a"}, fresh=False)


def test_starting_over_has_keys_of_its_own(tmp_path: Path) -> None:
    first = begun(tmp_path / "out")
    again = sidecar.reopened(tmp_path / "out", IDENTITY, fresh=True)
    assert (again.parts, again.key("a") == first.key("a")) == ([], False)


def test_starting_over_knows_the_batches_that_nobody_waits_for_any_more(tmp_path: Path) -> None:
    first = begun(tmp_path / "out")
    assert sidecar.reopened(tmp_path / "out", {"input": "2"}, fresh=True).left_behind == ["batch_1"]
    first.ended = True
    first.save()
    assert sidecar.reopened(tmp_path / "out", {"input": "2"}, fresh=True).left_behind == []


def test_a_call_by_which_nothing_was_asked_stands_in_nobodys_way(tmp_path: Path) -> None:
    first = begun(tmp_path / "out")
    first.parts = [Part("/v1/embeddings", 3)]
    first.save()
    assert sidecar.reopened(tmp_path / "out", {"input": "2"}, fresh=False).parts == []
    assert sidecar.reopened(tmp_path / "out", IDENTITY, fresh=False) == first  # its create may have been heard


def test_an_out_that_is_there_from_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(Problem, match="not from this command"):
        sidecar.reopened(tmp_path / "out", IDENTITY, fresh=False)
    assert sidecar.reopened(tmp_path / "out", IDENTITY, fresh=True).parts == []


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "[" * 100_000, '{"version": 99}', '{"version": 1, "parts": [{"odd": 1}]}',
     '{"version": 1, "identity": [], "nonce": "a"}', '{"version": 1, "identity": {}, "nonce": "a", "part_bytes": "b"}'],
)  # fmt: skip
def test_one_that_can_not_be_understood_is_one_line(tmp_path: Path, text: str) -> None:
    sidecar.beside(tmp_path / "out").write_text(text)
    with pytest.raises(Problem, match="can't be understood"):
        sidecar.reopened(tmp_path / "out", IDENTITY, fresh=False)


def test_half_a_page_is_cut_off_and_the_next_one_stands_behind_what_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with sidecar.growing(out) as growing:
        whole = growing.add(b"one\n")
        growing.add(b"half a li")
    with sidecar.growing(out) as growing:
        growing.cut(whole)
        growing.add(b"two\n")
    assert sidecar.part_of(out).read_bytes() == b"one\ntwo\n"


def test_two_commands_do_not_write_one_file(tmp_path: Path) -> None:
    first, second = (sidecar.growing(tmp_path / "out") for _ in range(2))
    with first, pytest.raises(Problem, match="Another command writes"):
        second.__enter__()
    assert list(tmp_path.iterdir()) == []  # one that holds nothing is not left behind


def test_a_password_in_an_address_is_not_kept() -> None:
    found = PlaceOptions(server="http://me:secret@host").identity()
    assert "secret" not in str(found)
    assert found != PlaceOptions(server="http://me:other@host").identity()


def test_the_engines_arguments_may_change_between_two_calls() -> None:
    one, two = (PlaceOptions(model="m", engine_args=(arg,)).identity() for arg in ("--a", "--b"))
    assert one == two
