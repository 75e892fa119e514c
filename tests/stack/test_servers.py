"""The embedded servers are real: they start, answer, and leave nothing behind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import psycopg
import pytest
import redis as redis_client

from penstock.stack import postgres, valkey
from penstock.stack.problem import Problem


def test_postgres_is_version_18_and_commits_in_utc(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.info.server_version // 10000 == 18
        assert connection.execute("show timezone").fetchone() == ("UTC",)
        assert connection.execute("show max_connections").fetchone() == ("200",)


def test_postgres_keeps_its_rows_over_a_restart_and_stops_with_its_with(short_dir: Path) -> None:
    folders = (short_dir / "keep", short_dir / "keeps", short_dir / "keep.log")
    with postgres.running(*folders) as url, psycopg.connect(url) as connection:
        connection.execute("create table kept as select 7 as seven")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)
    with postgres.running(*folders) as url, psycopg.connect(url) as connection:
        assert connection.execute("select seven from kept").fetchone() == (7,)


def test_only_the_owner_may_enter_the_folders_of_postgres(short_dir: Path, postgres_url: str) -> None:
    for name in ("pg", "pgs"):
        assert stat.S_IMODE((short_dir / name).stat().st_mode) == 0o700


def test_postgres_works_below_a_folder_that_is_closed_to_others(short_dir: Path) -> None:
    closed = short_dir / "closed"
    closed.mkdir(mode=0o700)
    with postgres.running(closed / "pg", closed / "s", closed / "pg.log") as url:
        psycopg.connect(url).close()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_socket_path_that_is_too_long_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="too long a path for a unix socket"):
        postgres.prepare(tmp_path / "pg", tmp_path / ("x" * 100))


def test_a_broken_data_folder_is_said_with_the_servers_own_words(short_dir: Path) -> None:
    data = short_dir / "broken"
    data.mkdir()
    (data / "PG_VERSION").write_text("9.6\n")
    with (
        pytest.raises(Problem, match="PostgreSQL did not start"),
        postgres.running(data, short_dir / "broken-s", short_dir / "broken.log"),
    ):
        pass


def test_valkey_asks_for_its_password_and_never_shows_it_in_its_arguments(short_dir: Path) -> None:
    address = valkey.new_address()
    with valkey.child(address, short_dir / "v2", short_dir / "v2.log") as server:
        valkey.wait_until_ready(server, address)
        with pytest.raises(redis_client.AuthenticationError):
            redis_client.Redis(port=address.port).ping()
        assert address.password not in Path(f"/proc/{server.pid}/cmdline").read_text()
        pid = server.pid
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_valkey_is_empty_at_the_start_of_each_test(redis_url: str) -> None:
    with redis_client.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
