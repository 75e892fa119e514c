"""What a dead worker left is killed by pid and start time, never by pid alone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker.engines import ended

from penstock_worker.engine.process import process_record
from penstock_worker.engine.process.guard import Process, look_up


@pytest.fixture
def left() -> Iterator[tuple[Process, Process]]:
    """A session of two processes, as a killed worker and guard leave it."""
    script = "sleep 1000 & echo $!; exec sleep 1000"
    leader = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert leader.stdout
    child = look_up(int(leader.stdout.readline()))
    first = look_up(leader.pid)
    assert first
    assert child
    yield first, child
    leader.kill()
    leader.wait()
    leader.stdout.close()
    subprocess.run(["kill", "-9", str(child.pid)], check=False, capture_output=True)


def test_a_recorded_session_is_killed_whole_even_if_only_one_process_was_recorded(
    left: tuple[Process, Process], tmp_path: Path
) -> None:
    leader, child = left
    process_record.write(tmp_path / "engine.json", leader.pid, [child])
    assert process_record.kill_leftovers(tmp_path / "engine.json") == 1
    assert ended(leader)
    assert ended(child)
    assert not (tmp_path / "engine.json").exists()


def test_a_recycled_pid_is_left_alone(left: tuple[Process, Process], tmp_path: Path) -> None:
    leader, child = left
    recycled = [Process(leader.pid, leader.started_ticks - 1), Process(child.pid, child.started_ticks - 1)]
    process_record.write(tmp_path / "engine.json", leader.pid, recycled)
    assert process_record.kill_leftovers(tmp_path / "engine.json") == 0
    assert look_up(leader.pid) == leader
    assert look_up(child.pid) == child
    assert not (tmp_path / "engine.json").exists()


def test_a_record_of_an_earlier_boot_means_nothing(
    left: tuple[Process, Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, _ = left
    with monkeypatch.context() as earlier:
        earlier.setattr(process_record, "boot", lambda: "earlier")
        process_record.write(tmp_path / "engine.json", leader.pid, [leader])
    assert process_record.kill_leftovers(tmp_path / "engine.json") == 0
    assert look_up(leader.pid) == leader


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": 1}', '{"boot": "", "session": 1, "processes": [[1]]}'])
def test_a_torn_record_is_no_record(text: str, tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    path.write_text(text)
    assert process_record.read(path) is None
    assert process_record.kill_leftovers(path) == 0


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    with (
        process_record.sole_owner(tmp_path / "engine.lock"),
        pytest.raises(process_record.InUse, match="Another worker"),
        process_record.sole_owner(tmp_path / "engine.lock"),
    ):
        pass
    with process_record.sole_owner(tmp_path / "engine.lock"):
        pass
