"""A house: API, keepers, io and gpu workers as processes of their own, which a test can end, stop and start by name.

    with House(database_url, redis_url, tmp_path, gpus=2, lease_seconds="5") as house:
        batch = house.client.submit([chat("one", "hello")])
        house.kill("gpu-1")
        house.start("gpu-1")
        house.client.ended(batch.id)

Processes are named `api-1`, `keeper-1`, `io-1`, `gpu-1` and so on. Keywords are settings of all of them
(`PENSTOCK_…`, written small); `own={"gpu-1": {"failpoints": "segment.written=kill"}}` are settings of one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

import httpx
import psutil
from e2e import live
from e2e.glance import Glance
from e2e.live import Client
from faults import fork_server
from faults.fork_server import Forked
from faults.house_pool import POOL, HousePool

from penstock.domain.work.lane import model_slug
from penstock.service.admin import keys
from penstock.service.core.transaction import Database
from penstock.stack.child import last_lines, tie
from penstock.stack.ports import free_port
from penstock.store.engine import sync_engine
from penstock_worker.engine.process import process_record
from penstock_worker.engine.process.guard import Process

KEY = "sk-penstock-the-key-of-the-house"
INGRESS_TOKEN = "the-token-between-the-house-and-its-ingresses"
SECRET_KEY = "dGhlLWtleS1vZi10aGUtc2VjcmV0cy1vZi1hLWhvdXM="
MODEL = "tiny"
R = TypeVar("R")


@dataclass
class Resident:
    """One named process: how it is started, and the one that runs now."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | Forked | None = None
    own: dict[str, str] = field(default_factory=dict)

    def tell(self) -> str:
        """Its state and the end of its log, for a message."""
        code = None if self.process is None else self.process.poll()
        state = "not started" if self.process is None else "runs" if code is None else f"ended with {code}"
        lines = last_lines(self.log, 6, 4_096).splitlines()
        return "\n".join([f"--- {self.name} {state}", *(line[:400] for line in lines)])


class House:
    """A whole platform, process by process, on one database, one Redis and one blob folder."""

    def __init__(
        self,
        database_url: str,
        redis_url: str,
        folder: Path,
        *,
        apis: int = 1,
        keepers: int = 1,
        ios: int = 1,
        gpus: int = 1,
        pool: HousePool | None = None,
        model: str = MODEL,
        engine: str = "echo",
        source: str = "echo",
        engine_arguments: Sequence[str] = (),
        own: Mapping[str, Mapping[str, str]] | None = None,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        **settings: str,
    ) -> None:
        """Describe it; `with` starts everything, and returns once a batch could run (unless `wait` is False).

        `environment` is what all processes are told beside their settings. Hosts of a pool are `host-1` and so on.
        """
        self.database_url = database_url
        self._glance = Glance(database_url)
        self.folder = folder
        self.blobs = folder / "blobs"
        self.logs = folder / "logs"
        self.scratch = folder / "scratch"
        self.model = model
        self._environment = environment or {}
        self._pool = pool
        self.residents: dict[str, Resident] = {}
        self._wait = wait
        self._stack = ExitStack()
        self._runtime = Path(tempfile.mkdtemp(prefix="ps-"))  # short, for the sockets in it
        self._keys = {keys.BOOTSTRAP_TENANT: KEY}
        self._clients: dict[str, Client] = {}
        for part in (self.blobs, self.logs, self.scratch):
            part.mkdir(parents=True, exist_ok=True)
        common = {
            "database_url": database_url,
            "redis_url": redis_url,
            "blob_url": f"file://{self.blobs}",
            "bootstrap_key": KEY,
            "ingress_token": INGRESS_TOKEN,
            "secret_keys": SECRET_KEY,
            "metrics_open": "true",
            **settings,
        }
        for number in range(1, apis + 1):
            port = free_port()
            self._add(f"api-{number}", ["penstock.cli.main", "api", "--port", str(port)], common)
            if number == 1:
                self.url = f"http://127.0.0.1:{port}"
        for number in range(1, keepers + 1):
            self._add(f"keeper-{number}", ["penstock.cli.main", "keeper"], common)
        for number in range(1, ios + 1):
            self._add(f"io-{number}", ["penstock_worker", "io"], common)
        gpu = ["penstock_worker", "gpu", "--model", f"{model}={source}", "--engine", engine]
        gpu += [f"--engine-arg={argument}" for argument in engine_arguments]
        for number in range(1, gpus + 1):
            self._add(f"gpu-{number}", gpu, common)
        for number in range(1, pool.hosts + 1 if pool else 1):
            self._add(f"host-{number}", ["penstock_worker", "pool", "--pool", POOL], common)
        for name, mine in (own or {}).items():
            self.residents[name].own.update(mine)

    def _add(self, name: str, arguments: list[str], settings: Mapping[str, str]) -> None:
        mine = {
            "runtime_dir": str(self._runtime / name),
            "log_dir": str(self.logs / name),
            "scratch_dir": str(self.scratch / name),
        }
        for folder in mine.values():
            Path(folder).mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PENSTOCK_")}
        environment |= {**self._environment, **_spelled({**settings, **mine})}
        self.residents[name] = Resident(name, arguments, environment, self.logs / f"{name}.log")

    def __enter__(self) -> Self:
        try:
            if self._pool:
                self.run(self._pool.make)
            for name in self.residents:
                self.start(name)
            if self._wait:
                self.wait_until_ready()
            self.client = self.client_of(keys.BOOTSTRAP_TENANT)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.tell())
        self._end()

    def _end(self) -> None:
        self._stack.close()
        self._glance.close()
        for name in self.residents:
            self.kill(name)
        try:
            _bury(str(self._runtime))
        finally:
            shutil.rmtree(self._runtime, ignore_errors=True)

    # Processes.

    def start(self, name: str, **own: str) -> None:
        """Start one that does not run, from now on with these settings of its own (a failpoint is armed once only)."""
        one = self.residents[name]
        assert one.process is None or one.process.poll() is not None, f"{name} runs already"
        one.own.update(own)
        environment = one.environment | _spelled(one.own)
        if "PYTHONPATH" in environment:  # what it leads to is for the interpreter's own start
            one.process = _popen(one, environment)
        else:
            one.process = fork_server.shared().start(one.arguments, environment, one.log)
        one.own.pop("failpoints", None)

    def named(self, kind: str) -> list[str]:
        """The names of all `api`, `keeper`, `io`, `gpu` or `host`."""
        return [name for name in self.residents if name.startswith(f"{kind}-")]

    def pid(self, name: str) -> int:
        """The process that was started last under this name."""
        process = self.residents[name].process
        assert process is not None, f"{name} was never started"
        return process.pid

    def lives(self, name: str) -> bool:
        """Whether it runs; one that is stopped does."""
        process = self.residents[name].process
        return process is not None and process.poll() is None

    def send(self, name: str, number: int) -> None:
        """Send it a signal, unless it has ended."""
        process = self.residents[name].process
        if process is not None:
            process.send_signal(number)  # looks first whether it has ended, so that a used-again pid is safe

    def kill(self, name: str) -> None:
        """`kill -9`, and wait for its end."""
        self.send(name, signal.SIGKILL)
        if self.residents[name].process is not None:
            self.wait(name, 20)

    def terminate(self, name: str) -> None:
        """Tell it to end, and return at once: SIGTERM."""
        self.send(name, signal.SIGTERM)

    def stop(self, name: str) -> None:
        """Freeze it: SIGSTOP."""
        self.send(name, signal.SIGSTOP)

    def cont(self, name: str) -> None:
        """Let it go on: SIGCONT."""
        self.send(name, signal.SIGCONT)

    def wait(self, name: str, seconds: float = 30.0) -> int:
        """Wait for its end; how it ended, as `subprocess` says it."""
        process = self.residents[name].process
        assert process is not None, f"{name} was never started"
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} does not end within {seconds:g} s\n{self.tell(name)}") from None

    def restart(self, name: str, seconds: float = 30.0, **own: str) -> None:
        """End it by SIGTERM, as a rolling update does, and start it again."""
        self.terminate(name)
        self.wait(name, seconds)
        self.start(name, **own)

    def runtime(self, name: str) -> Path:
        """Its runtime folder."""
        return self._runtime / name

    def left_by(self, name: str) -> list[psutil.Process]:
        """What lives and has something in its runtime folder: guards, engines, a host's members."""
        return _living(str(self.runtime(name)))

    def engine(self, name: str) -> tuple[Process, ...]:
        """The processes of a gpu worker's engine that were seen so far, guard first; empty while there is none."""
        found = process_record.read(self._runtime / name / model_slug(self.model) / "engine.json")
        return found.processes if found else ()

    def engine_socket(self, name: str) -> Path:
        """Where a gpu worker's engine itself listens."""
        return self._runtime / name / model_slug(self.model) / "engine.sock"

    def kill_engine(self, name: str) -> bool:
        """`kill -9` of the engine alone, not of its worker or guard; False if there is none at this moment."""
        engine = self.engine(name)[1:]
        for process in engine:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        return bool(engine)

    def holder(self, name: str) -> UUID | None:
        """The id under which the process that runs now holds its leases, once it is registered."""
        return self.ask("select id from workers where pid = %s order by started_at desc limit 1", self.pid(name))

    def peak_mib(self, name: str) -> float:
        """The most memory that the process ever had."""
        status = Path(f"/proc/{self.pid(name)}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024

    # Looking.

    def wait_until_ready(self, seconds: float = 600.0) -> None:
        """Return once every process that was started works."""
        self.until(self._is_ready, "the house is ready", seconds)

    def _is_ready(self) -> bool:
        for name, one in self.residents.items():
            assert one.process is None or self.lives(name), self.tell(name)
        pids = [self.pid(name) for name in self.residents if self.lives(name) and not name.startswith("api-")]
        ready = self.ask("select count(distinct pid) from workers where state = 'ready' and pid = any(%s)", pids)
        return bool(ready == len(pids)) and _answers(f"{self.url}/health/work")

    @property
    def urls(self) -> list[str]:
        """Where the APIs listen, in order."""
        return [f"http://127.0.0.1:{self.residents[name].arguments[-1]}" for name in self.named("api")]

    def wait_until_answering(self, seconds: float = 150.0) -> None:
        """Return once every API answers, whoever else is there."""
        for url in self.urls:
            self.until(lambda url=url: _answers(f"{url}/health/ready"), f"{url} answers", seconds)

    def until(self, look: Callable[[], R], what: str, seconds: float = 60.0) -> R:
        """Look again and again until there is something to see; the message has the ends of the logs."""
        return live.until(look, lambda: f"{what}\n{self.tell()}", seconds)

    def tell(self, *names: str) -> str:
        """The states of these processes (or of all) and the ends of their logs."""
        return "\n".join(self.residents[name].tell() for name in names or self.residents)

    def ask(self, query: str, *values: Any) -> Any:
        """One value from the database."""
        rows = self.rows(query, *values)
        return rows[0][0] if rows else None

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Rows from the database."""
        return self._glance.rows(query, *values)

    def sql(self, statement: str, *values: Any) -> None:
        """Change something behind the platform's back."""
        self._glance.rows(statement, *values)

    def run(self, use_case: Callable[..., R], *arguments: Any) -> R:
        """One use case of the platform in a transaction of its own, as the command line runs it."""
        db = Database(sync_engine(self.database_url, connections=1), lambda hints: None)
        try:
            return db.run(use_case, *arguments)
        finally:
            db.close()

    # Tenants.

    def key_of(self, tenant: str) -> str:
        """A tenant's key, and the tenant unless it is there; `default` has the first one."""
        if tenant not in self._keys:
            self._keys[tenant] = self.run(keys.create, tenant, "tests")[1]
        return self._keys[tenant]

    def client_of(self, tenant: str) -> Client:
        """A tenant's clients; usable from any thread."""
        if tenant not in self._clients:
            self._clients[tenant] = self._stack.enter_context(live.client(self.url, self.key_of(tenant)))
        return self._clients[tenant]


def _popen(one: Resident, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Tied to this process by the kernel: nothing is left if even the test is killed."""
    command = [*tie(signal.SIGKILL), "-", sys.executable, "-m", *one.arguments]
    with one.log.open("ab") as log:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _spelled(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"PENSTOCK_{name.upper()}": value for name, value in settings.items()}


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False, verify=live.TLS).status_code == 200
    except httpx.HTTPError:
        return False


def _bury(runtime: str, seconds: float = 10.0) -> None:
    """Wait for the end of every engine of this house: its guard kills it when the worker dies. Kill what is left."""
    end = time.monotonic() + seconds
    while left := _living(runtime):
        if time.monotonic() > end:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            raise AssertionError(f"processes outlived their worker: {left}")
        time.sleep(0.02)


def _living(runtime: str) -> list[psutil.Process]:
    """Processes that name something in this folder, as guards and engines do, or were told to use it, as members."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            told = [*process.cmdline(), process.environ().get("PENSTOCK_RUNTIME_DIR", "")]
            if any(runtime in word for word in told):
                found.append(process)
    return found
