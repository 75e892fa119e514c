"""`penstock up` with the simulated engine: it comes up, heals, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from penstock.stack.ports import free_port

PENSTOCK = str(Path(sys.executable).with_name("penstock"))


@dataclass
class Up:
    """One `penstock up` and what it has said so far."""

    process: subprocess.Popen[str]
    data: Path
    url: str
    said: list[str]

    def hear(self, words: str) -> str:
        """Read on until a line holds these words."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if words in line:
                return line
        raise AssertionError("it ended, and said:\n" + "\n".join(self.said))

    def family(self) -> list[psutil.Process]:
        """The process and all that it started."""
        one = psutil.Process(self.process.pid)
        return [one, *one.children(recursive=True)]

    def child(self, name: str) -> psutil.Process:
        """The child that writes this log; Celery changes its own command line."""
        children = psutil.Process(self.process.pid).children()
        return next(one for one in children if Path(os.readlink(f"/proc/{one.pid}/fd/1")).stem == name)


@contextmanager
def started(data: Path, *flags: str) -> Iterator[Up]:
    port = free_port()
    command = [PENSTOCK, "up", "--data", str(data), "--port", str(port), "--flower-port", str(free_port()), *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    environment["XDG_RUNTIME_DIR"] = str(data.parent)  # where the runtime folder goes, and is removed with the rest
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd="/"
    )
    up = Up(process, data, f"http://127.0.0.1:{port}", [])
    try:
        yield up
    finally:
        process.terminate()
        process.communicate(timeout=90)


def get(url: str, **headers: str) -> httpx.Response:
    """GET, and try again while nobody listens."""
    with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=20) as client:
        return client.get(url, headers=headers)


@pytest.fixture(scope="module")
def up(short_dir: Path) -> Iterator[Up]:
    with started(short_dir / "up", "--engine", "echo") as up:
        up.hear("ready:")
        up.hear("Ctrl-C")
        yield up


@pytest.mark.timeout(180)
def test_it_answers_on_its_port_and_work_can_run_at_once(up: Up) -> None:
    assert get(f"{up.url}/health/ready").status_code == 200
    assert get(f"{up.url}/health/work?model=tiny").status_code == 200


def test_it_prints_the_key_that_it_keeps_for_its_owner_only(up: Up) -> None:
    key = (up.data / "key").read_text().strip()
    assert len([line for line in up.said if key in line]) == 1
    assert stat.S_IMODE((up.data / "key").stat().st_mode) == 0o600
    assert get(f"{up.url}/v1/models", authorization=f"Bearer {key}").status_code == 200
    assert get(f"{up.url}/v1/models").status_code == 401


def test_no_secret_stands_in_a_command_line(up: Up) -> None:
    secrets = [
        (up.data / name).read_text().strip() for name in ("key", "flower-password", "ingress-token", "metrics-token")
    ]
    for process in up.family():
        assert not any(secret in word for secret in secrets for word in process.cmdline())


@pytest.mark.parametrize("secret", ["key", "ingress-token", "metrics-token"])
def test_nobody_is_told_a_secret_who_needs_it_not(up: Up, secret: str) -> None:
    token = (up.data / secret).read_text().strip()
    # A gpu worker's can't be read: Celery writes its command line over it.
    names = ("api", "keeper", "valkey", "postgres", "flower")
    assert {name for name in names if token in up.child(name).environ().values()} == {"api"}


def test_metrics_are_read_with_their_token(up: Up) -> None:
    token = (up.data / "metrics-token").read_text().strip()
    assert get(f"{up.url}/metrics").status_code == 401
    assert get(f"{up.url}/metrics", authorization=f"Bearer {token}").status_code == 200


def doctor(up: Up, **settings: str) -> dict[str, dict[str, str]]:
    """What it finds on the folder, by name."""
    command = [PENSTOCK, "doctor", "--data", str(up.data), "--port", up.url.rpartition(":")[2], "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    environment |= {"XDG_RUNTIME_DIR": str(up.data.parent), **settings}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    told = json.loads(done.stdout)
    assert told["ok"] is (done.returncode == 0)
    return {one["name"]: one for one in told["checks"]}


def test_the_doctor_finds_it_well_and_a_token_that_its_worker_has_not(up: Up) -> None:
    found = doctor(up)
    assert {one["verdict"] for one in found.values()} <= {"ok", "skipped"}
    assert found["processes"]["said"] == "1 gpu tiny, 1 io, 1 keeper"
    assert found["ingress token"]["said"] == "1 workers accept it"
    assert found["port"]["said"].endswith("is ready")
    other = doctor(up, PENSTOCK_INGRESS_TOKEN="another-token")
    assert (other["ingress token"]["verdict"], "has another" in other["ingress token"]["said"]) == ("failed", True)


def test_flower_asks_for_its_password(up: Up) -> None:
    line = next(line for line in up.said if "Flower  " in line)
    url = re.findall(r"http://[\d.:]+", line)[0]
    password = (up.data / "flower-password").read_text().strip()
    known = ("/", "/workers", "/tasks", "/api/workers", "/metrics", "/healthcheck", "/static/js/flower.js", "/login")
    for path in (*known, "/favicon.ico", "/robots.txt", "/none"):
        assert (answer := get(f"{url}{path}")).status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Basic"), path
        assert (answer.text, answer.headers["x-frame-options"]) == ("Access denied", "DENY"), path
    for wrong in (("penstock", "wrong"), ("", ""), ("other", password)):
        assert httpx.get(f"{url}/metrics", auth=wrong, timeout=20).status_code == 401
    for odd in ("Basic", "Basic !", "Basic /w==", f"Bearer {password}"):
        assert get(f"{url}/metrics", authorization=odd).status_code == 401
    assert httpx.post(f"{url}/api/task/revoke/x", timeout=20).status_code == 401
    with httpx.Client(auth=("penstock", password), timeout=20) as client:
        for path in ("/workers", "/metrics", "/healthcheck", "/static/js/flower.js", "/api/workers"):
            answer = client.get(f"{url}{path}")
            assert answer.status_code == 200, path
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("name", ["api", "keeper", "io", "gpu", "flower", "valkey", "postgres"])
def test_a_child_that_was_killed_comes_back(up: Up, name: str) -> None:
    up.child(name).kill()
    up.hear(f"{name} was killed by SIGKILL")
    up.hear(f"{name} started again")
    end = time.monotonic() + 30
    while get(f"{up.url}/health/ready").status_code != 200:
        assert time.monotonic() < end


def test_a_port_that_is_taken_is_one_line_and_status_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [PENSTOCK, "up", "--data", str(tmp_path), "--port", port], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert re.fullmatch(r"\[up\] FAILED: The API can't use .*--port\.\n", done.stdout)
    assert done.stderr == ""


def test_an_old_name_of_a_setting_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    done = subprocess.run(
        [PENSTOCK, "up", "--data", str(tmp_path / "data"), "--port", str(free_port())],
        env=os.environ | {"PENSTOCK_DOOR_TOKEN": "t"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "penstock: PENSTOCK_DOOR_TOKEN is now PENSTOCK_INGRESS_TOKEN: set the new name instead.\n"
    assert not (tmp_path / "data").exists()


@pytest.mark.timeout(120)
def test_an_engine_that_can_t_start_is_said_with_its_own_words_and_given_up_at_once(short_dir: Path) -> None:
    with started(short_dir / "failing", "--engine", "echo", "--engine-arg=--no-such-flag") as up:
        up.hear("[up] FAILED: gpu: The engine does not start: error: unrecognized arguments: --no-such-flag (its log: ")
        assert up.process.wait(60) == 1
        [log] = up.data.glob("logs/engine-*.log")
        assert log.read_text().count("--- start") == 1, "what can't heal is tried once"


@pytest.mark.parametrize("command", ["up", "worker"])
def test_a_folder_that_is_no_model_is_one_line_before_anything_starts(command: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    flags = ["--data", str(tmp_path / "data"), "--port", str(free_port())] if command == "up" else []
    done = subprocess.run(
        [PENSTOCK, command, "--model", str(tmp_path / "model"), *flags], capture_output=True, text=True, check=False
    )
    why = f"{tmp_path}/model is no model folder: there is no config.json in it (it is empty).\n"
    told = {"up": "[up] FAILED: ", "worker": "penstock worker: "}[command] + why
    said = [line for line in (done.stdout + done.stderr).splitlines(keepends=True) if "database is away" not in line]
    assert said == [told]
    assert done.returncode == 1
    assert not (tmp_path / "data").exists()


def test_a_second_one_on_the_same_folder_is_refused(up: Up) -> None:
    command = [PENSTOCK, "up", "--data", str(up.data), "--port", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"process {up.process.pid}" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("end", "status"),
    [(signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_nothing_runs_on_after_its_end(short_dir: Path, end: signal.Signals, status: int) -> None:
    with started(short_dir / "ending", "--engine", "echo") as up:
        up.hear("Ctrl-C")
        family = up.family()
        up.process.send_signal(end)
        assert up.process.wait(60) == status
        assert psutil.wait_procs(family, timeout=40)[1] == []
