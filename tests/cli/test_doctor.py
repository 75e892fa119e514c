"""`penstock doctor` names what is missing, one line each, waits for nothing that hangs, and tells no secret."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from penstock.cli.main import app
from penstock.doctor.examination import examine
from penstock.doctor.finding import FindingVerdict, ok, words
from penstock.domain.engine_trouble import EngineTrouble
from penstock.domain.work.holder import Holder
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings import Settings
from penstock.stack.ports import free_port

PASSWORD = "hunter2hunter2"
DEAD = "127.0.0.1:9"
Examine = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


@pytest.fixture
def surroundings(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of a whole platform, whose processes don't run."""
    for name in ("database_url", "redis_url", "blob_url"):
        monkeypatch.setenv(f"PENSTOCK_{name.upper()}", getattr(settings, name))
    for name in ("scratch", "log", "runtime"):
        monkeypatch.setenv(f"PENSTOCK_{name.upper()}_DIR", str(tmp_path / name))
    (tmp_path / "blobs").mkdir()
    monkeypatch.setenv("PENSTOCK_INGRESS_TOKEN", PASSWORD)
    monkeypatch.delenv("PENSTOCK_DATA", raising=False)
    return monkeypatch


@pytest.fixture
def doctor(surroundings: pytest.MonkeyPatch) -> Examine:
    """Run it in this environment and others like it; its exit code, and its findings by name."""

    def run(*flags: str, **changed: str) -> tuple[int, dict[str, dict[str, Any]]]:
        for name, value in changed.items():
            surroundings.setenv(name, value)
        done = _run("--json", "--port", str(free_port()), *flags)
        told = json.loads(done.stdout)
        assert told["ok"] is (done.exit_code == 0)
        return done.exit_code, {one["name"]: one for one in told["checks"]}

    return run


def _run(*flags: str) -> Result:
    done = CliRunner().invoke(app, ["doctor", *flags])
    assert PASSWORD not in done.output
    assert "Traceback" not in done.output
    return done


def test_a_platform_that_could_start_is_well(doctor: Examine) -> None:
    status, found = doctor()
    assert status == 0
    assert {name for name, one in found.items() if one["verdict"] != "ok"} == {"processes"}
    assert re.fullmatch(r"version 1\d.+, at revision \d{4}", found["postgres"]["said"])
    assert found["clock"]["said"] == "this machine and Postgres agree"
    parts = "1 API × 10, 1 keeper × 3, 1 io × 8, 1 gpu × 19, 1 for commands × 3"
    assert f"43 of 197 at most ({parts})" in found["connections"]["said"]
    assert found["blobs"]["said"].endswith("takes, gives back and deletes a blob")
    assert found["processes"]["said"] == "none runs"


BUCKET = {
    "PENSTOCK_BLOB_URL": "s3://none/prefix",
    "AWS_ENDPOINT": f"http://{DEAD}",
    "AWS_ALLOW_HTTP": "true",
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": PASSWORD,
    "AWS_REGION": "somewhere",
}
MISSING = {
    "postgres": {"PENSTOCK_DATABASE_URL": f"postgresql://me:{PASSWORD}@{DEAD}/x"},
    "redis": {"PENSTOCK_REDIS_URL": f"redis://:{PASSWORD}@{DEAD}/0"},
    "blobs": BUCKET,
}


@pytest.mark.parametrize("server", MISSING)
def test_a_server_that_is_missing_is_named_with_its_mend_and_the_others_are_well(server: str, doctor: Examine) -> None:
    status, found = doctor(**MISSING[server])
    assert status == (0 if server == "redis" else 1), "without Redis work goes on"
    assert found[server]["verdict"] == ("warning" if server == "redis" else "failed")
    assert found[server]["mend"]
    assert [name for name in MISSING if found[name]["verdict"] != "ok"] == [server]
    if server == "postgres":
        assert "Connection refused" in found[server]["said"]
        assert {found[name]["verdict"] for name in ("clock", "connections", "processes")} == {"skipped"}


@pytest.fixture
def frozen() -> Iterator[str]:
    """Where connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_servers_that_hang_hold_nothing_up(frozen: str, doctor: Examine) -> None:
    hanging = {name: value.replace(DEAD, frozen) for server in MISSING.values() for name, value in server.items()}
    status, found = doctor(**hanging)
    assert status == 1
    assert "timeout" in found["postgres"]["said"]
    assert "Timeout" in found["redis"]["said"]
    assert "it says nothing for 3 s" in found["blobs"]["said"]
    assert found["python"]["verdict"] == "ok"


def test_a_look_that_never_ends_or_breaks_is_a_finding() -> None:
    def broken() -> Iterator[Any]:
        raise RuntimeError("first line\nsecond line")
        yield

    def hanging() -> list[Any]:
        threading.Event().wait()
        return []

    looks = {"hangs": hanging, "breaks": broken, "good": lambda: [ok("good", "x")]}
    found = examine(looks, patience_seconds=0.3)
    assert [(one.name, one.verdict) for one in found] == [
        ("hangs", FindingVerdict.FAILED), ("breaks", FindingVerdict.FAILED), ("good", FindingVerdict.OK),
    ]  # fmt: skip
    assert found[1].said == "RuntimeError: first line"
    assert words(ValueError(f"at postgresql://me:{PASSWORD}@host/x.\nmore")) == "at postgresql://…@host/x"


def test_a_database_that_is_not_migrated_is_named_with_the_command(doctor: Examine, empty_database_url: str) -> None:
    status, found = doctor(PENSTOCK_DATABASE_URL=empty_database_url)
    assert status == 1
    assert found["postgres"] == {
        "name": "postgres",
        "verdict": "failed",
        "said": "The database holds nothing of Penstock yet",
        "mend": "Run `penstock migrate`.",
    }
    assert found["clock"]["verdict"] == "ok"


def test_more_connections_than_the_server_has_are_told_before_processes_fail(doctor: Examine) -> None:
    status, found = doctor("--apis", "20")
    assert (status, found["connections"]["verdict"]) == (1, "failed")
    assert found["connections"]["said"].startswith("233 of 197 at most (20 API × 10,")
    assert "max_connections" in found["connections"]["mend"]
    assert doctor("--apis", "15")[1]["connections"]["verdict"] == "warning"


def test_live_processes_and_what_lacks_among_them_are_told(doctor: Examine, db: Database, settings: Settings) -> None:
    def register(kind: str, state: str) -> Holder:
        holder = Holder(uuid4(), kind, "tiny" if kind == "gpu" else None, "host", 1)
        db.run(work.register, holder, state, 8)
        return holder

    register("keeper", "ready")
    gpu = register("gpu", "starting")
    status, found = doctor()
    assert (status, found["processes"]["said"]) == (1, "1 gpu tiny, 1 keeper; no io")
    register("io", "ready")
    assert doctor()[1]["processes"]["verdict"] == "warning"
    db.run(work.mark, gpu, "starting", settings, EngineTrouble(1, "ModelConfig: no such thing"))
    assert "the engine of tiny does not start: ModelConfig: no such thing" in doctor()[1]["processes"]["said"]
    db.run(work.mark, gpu, "ready", settings)
    assert doctor()[1]["processes"]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("name", "changed", "verdict", "said"),
    [
        ("ingress token", {"PENSTOCK_INGRESS_TOKEN": ""}, "warning", "workers take no waiting calls"),
        ("webhook keys", {"PENSTOCK_SECRET_KEYS": f"{PASSWORD}"}, "failed", "the secret keys can't be read"),
        ("settings", {"PENSTOCK_API_TURN": "3"}, "warning", "PENSTOCK_API_TURN is no setting"),
        ("open files", {"PENSTOCK_MAX_CONNECTIONS": "1000000000"}, "warning", "an API wants 2000000200"),
        ("folder of scratch", {"PENSTOCK_SCRATCH_DIR": "/dev/null/none"}, "failed", "can't be written to"),
        ("engine", {"PENSTOCK_ENGINE_PYTHON": "/nowhere/python"}, "failed", "/nowhere/python does not work"),
    ],
)
def test_what_is_set_wrong_is_named(
    name: str, changed: dict[str, str], verdict: str, said: str, doctor: Examine
) -> None:
    status, found = doctor(**changed)
    assert (found[name]["verdict"], status) == (verdict, int(verdict == "failed"))
    assert said in found[name]["said"]


def test_a_setting_that_is_no_value_is_one_line(surroundings: pytest.MonkeyPatch) -> None:
    surroundings.setenv("PENSTOCK_API_TURNS", "x")
    done = _run()
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "penstock: PENSTOCK_API_TURNS is 'x': it must be a whole number.\n"


def test_for_people_it_is_a_line_each_and_a_sum(surroundings: pytest.MonkeyPatch) -> None:
    surroundings.setenv("PENSTOCK_REDIS_URL", MISSING["redis"]["PENSTOCK_REDIS_URL"])
    lines = _run("--port", str(free_port())).stdout.splitlines()
    [redis] = [line for line in lines if "redis" in line]
    assert re.match(r"warning  redis          can't be reached: .+; workers ask Postgres .+\. Start it, or mend", redis)
    assert sum(map(int, re.findall(r"\d+", lines[-1]))) == len(lines) - 1


def test_a_folder_that_is_no_platform_s_is_one_line(surroundings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = _run("--data", str(tmp_path))
    assert done.exit_code == 1
    assert done.stderr == f"penstock: {tmp_path} is no data folder of `penstock up`: nothing was started there yet.\n"
