"""`penstock up`: the whole platform on one machine, from one data folder, and nothing of it left behind at the end.

The order: embedded servers, migrations, then keeper, io worker, gpu worker and Flower; the API comes last, when
the worker says in Postgres that its engine is ready. So whoever can connect to the port can have work done, and no
second API process is needed to ask. Every child dies with this process (child.py), whatever kills it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx

from penstock.domain.api_errors import Unavailable
from penstock.domain.engines.profile import EngineProfile, EngineSource
from penstock.domain.engines.profiles import PROFILES, VLLM
from penstock.domain.fleet.worker import Worker
from penstock.domain.work.lane import model_slug
from penstock.model_source.download import Download, in_words
from penstock.model_source.look import look
from penstock.model_source.no_model import NoModel
from penstock.service.admin import health
from penstock.service.core.transaction import Database
from penstock.settings import load
from penstock.stack import child_environment, local_pool, ports, postgres, tiny_model, valkey
from penstock.stack import layout as layouts
from penstock.stack.child import Child, last_lines, last_word, tie
from penstock.stack.chosen_model import TINY
from penstock.stack.layout import Layout
from penstock.stack.problem import Problem
from penstock.store.engine import sync_engine

SERVERS: Final = ("postgres", "valkey")
# A child that dies this often before the platform is ready will not come up by itself.
DEATHS_BEFORE_READY: Final = 3
TEND_SECONDS: Final = 0.25
NEWS_SECONDS: Final = 15.0
API_SECONDS: Final = 180.0
"""An API that is not ready by then never will be: it starts in five, in thirty on a machine that is very busy."""


@dataclass(frozen=True)
class StackOptions:
    """What to start: the flags of `penstock up`. `source` None means that the project makes the model `tiny`."""

    data: Path
    port: int = 8000
    host: str = "127.0.0.1"
    model: str = TINY
    source: str | None = None
    engine: str = VLLM.name
    engine_args: tuple[str, ...] = ()
    more: tuple[local_pool.Named, ...] = ()
    """Further models: all of them together are the pool `local`."""
    awake: int = 1
    """So many of the pool's at once."""
    flower_port: int | None = None
    redis: bool = True
    """Without Redis nobody hears a hint, and Flower has nothing to show: workers ask Postgres themselves."""
    flower: bool = True
    ready_seconds: float = 1_800.0

    @property
    def profile(self) -> EngineProfile:
        """Of its engine."""
        return PROFILES[self.engine]

    @property
    def each(self) -> tuple[StackOptions, ...]:
        """The same for each of its models alone."""
        return (replace(self, more=()), *map(self._alone, self.more))

    def _alone(self, model: local_pool.Named) -> StackOptions:
        return replace(self, model=model.name, source=model.source, engine=model.engine, more=())

    @property
    def flower_runs(self) -> bool:
        """Whether Flower is started."""
        return self.redis and self.flower


@dataclass
class Running:
    """A platform that runs: where it is, and its children in the order of their start."""

    layout: Layout
    url: str
    key: str
    key_made: bool
    flower_password: str
    models: tuple[str, ...]
    say: Callable[[str], None]
    flower_url: str | None = None
    """None if it was started without Redis, or without Flower."""
    children: list[Child] = field(default_factory=list)

    @property
    def model(self) -> str:
        """The first."""
        return self.models[0]

    def tend(self) -> None:
        """Look after the children once: start again who died."""
        now = time.monotonic()
        for child in self.children:
            if said := child.tend(now):
                self.say(said)


@contextmanager
def platform(wish: StackOptions, environment: Mapping[str, str], say: Callable[[str], None]) -> Iterator[Running]:
    """Start everything and wait until it can work; stop everything at the end of the `with`."""
    load()  # what is misspelt or no value is told before anything starts
    layout = layouts.at(wish.data)
    downloads = [_look_at_model(one, environment) for one in wish.each]
    ports.check_port(wish.host, wish.port, "The API", "--port")
    if wish.flower_port is not None:
        ports.check_port("127.0.0.1", wish.flower_port, "Flower", "--flower-port")
    layout.make()
    with ExitStack() as stack:
        stack.enter_context(layouts.held(layout))
        running = _describe(wish, layout, environment, say)
        stack.callback(_stop, running)
        say(f"data folder {layout.data}, logs in {layout.logs}")
        for one, download in zip(wish.each, downloads, strict=True):
            if download and download.total_bytes:
                say(f"{one.source}: {in_words(download.total_bytes - download.done_bytes)} are to be downloaded first")
        makers = [_begin_tiny_model(one, layout, say) for one in wish.each]
        runtime = layouts.runtime_folder(layout, environment)
        settings = _start_servers(running, wish, runtime, environment)
        _migrate(running, settings)
        sources = [
            _end_tiny_model(maker, one, layout) if one.source is None else one.source
            for one, maker in zip(wish.each, makers, strict=True)
        ]
        _start_workers(running, wish, sources, settings)
        _wait_for_engine(running, wish, settings["PENSTOCK_DATABASE_URL"], None if wish.more else downloads[0])
        _start_api(running, wish, settings)
        yield running


def _look_at_model(wish: StackOptions, environment: Mapping[str, str]) -> Download | None:
    """What the engine will have to download, if anything; Problem if it can't load this model."""
    if wish.source is None and wish.profile.is_elsewhere:
        raise Problem(f"--engine {wish.engine} leads to an engine that runs already: it has no model `{wish.model}`.")
    if wish.source is None:
        return None
    try:
        return look(wish.source, wish.engine_args, environment, wish.profile.source)
    except NoModel as error:
        raise Problem(str(error)) from None


def _describe(
    wish: StackOptions, layout: Layout, environment: Mapping[str, str], say: Callable[[str], None]
) -> Running:
    key, made = layouts.api_key(layout, environment)
    host = "127.0.0.1" if wish.host in ("0.0.0.0", "::", "localhost") else wish.host
    return Running(
        layout=layout,
        url=f"http://{f'[{host}]' if ':' in host else host}:{wish.port}",
        key=key,
        key_made=made,
        flower_password=layouts.flower_password(layout),
        models=tuple(one.model for one in wish.each),
        say=say,
    )


def _begin_tiny_model(wish: StackOptions, layout: Layout, say: Callable[[str], None]) -> subprocess.Popen[bytes] | None:
    """Make a model of the project's beside everything else, since importing torch takes seconds."""
    place = tiny_model.place(wish.model, wish.profile.source, layout.models)
    if wish.source is not None or wish.profile.source is EngineSource.NOTHING or tiny_model.is_made(place):
        return None
    say(f"making the model `{wish.model}` (random weights, fixed seed)")
    command = tiny_model.command(wish.model, place)
    with (layout.logs / "tiny.log").open("ab") as log:
        return subprocess.Popen([*tie(9), "-", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _end_tiny_model(maker: subprocess.Popen[bytes] | None, wish: StackOptions, layout: Layout) -> str:
    if maker is not None and maker.wait(timeout=300) != 0:
        log = layout.logs / "tiny.log"
        raise Problem(f"The model `{wish.model}` could not be made: {last_lines(log, 1)} (log: {log})")
    return str(tiny_model.place(wish.model, wish.profile.source, layout.models))


def _start_servers(
    running: Running, wish: StackOptions, runtime: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    """Start PostgreSQL and Valkey, and give the environment of which each other child gets its part."""
    layout, say = running.layout, running.say
    say("starting PostgreSQL and Valkey" if wish.redis else "starting PostgreSQL; no Valkey, no Flower")
    data, sockets = layout.data / "postgres", runtime / "postgres"
    postgres.prepare(data, sockets)
    address = valkey.new_address()
    bare = child_environment.of("postgres", environment)
    database = postgres.child(data, sockets, layout.logs / "postgres.log", environment=bare)
    _start(running, database)
    if wish.redis:
        bare = child_environment.of("valkey", environment)
        hints = valkey.child(address, layout.data / "valkey", layout.logs / "valkey.log", bare)
        _start(running, hints)
        valkey.wait_until_ready(hints, address)
    postgres.wait_until_ready(database, postgres.url(sockets))
    return {
        **environment,
        "PENSTOCK_DATABASE_URL": postgres.url(sockets),
        "PENSTOCK_REDIS_URL": address.url,
        "PENSTOCK_BLOB_URL": layout.blob_url,
        "PENSTOCK_SCRATCH_DIR": str(layout.scratch),
        "PENSTOCK_RUNTIME_DIR": str(runtime),
        "PENSTOCK_LOG_DIR": str(layout.logs),
        child_environment.KEY: running.key,
        child_environment.INGRESS_TOKEN: layouts.ingress_token(layout, environment),
        **layouts.secret_keys(layout, environment),
        child_environment.METRICS_TOKEN: layouts.metrics_token(layout, environment),
        "PYTHONUNBUFFERED": "1",
        # The folder that `up` was called in is no place to import from.
        "PYTHONSAFEPATH": "1",
    }


def _migrate(running: Running, settings: dict[str, str]) -> None:
    running.say("migrating the database")
    log = running.layout.logs / "migrate.log"
    with log.open("wb") as file:
        done = subprocess.run(
            [*tie(9), "-", *_python("penstock.cli.main", "migrate")],
            env=child_environment.of("migrate", settings),
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise Problem(f"The database could not be migrated: {last_lines(log, 1)} (log: {log})")
    for line in log.read_text().splitlines():
        if line.startswith("warning: "):
            running.say(line)


def _start_workers(running: Running, wish: StackOptions, sources: Sequence[str], settings: dict[str, str]) -> None:
    logs = running.layout.logs
    if wish.more:
        running.say(f"starting keeper, io worker and the host of pool {local_pool.NAME}, {wish.awake} awake at once")
        models = [
            local_pool.LocalModel(one.model, source, one.engine, _arguments(running, one, settings))
            for one, source in zip(wish.each, sources, strict=True)
        ]
        with _database(settings["PENSTOCK_DATABASE_URL"]) as db:
            local_pool.make(db, models, wish.awake, load())
        last = _child("pool", _python("penstock_worker", "pool", "--pool", local_pool.NAME), logs, settings, 70)
    else:
        running.say(f"starting keeper, io worker and gpu worker ({wish.engine} with {wish.model})")
        gpu = ["gpu", "--model", f"{wish.model}={sources[0]}", "--engine", wish.engine]
        gpu += [f"--engine-arg={argument}" for argument in _arguments(running, wish, settings)]
        gpu.append("--promote")  # what is started here is what is asked here
        last = _child("gpu", _python("penstock_worker", *gpu), logs, settings, grace_seconds=30)
    _start(
        running,
        _child("keeper", _python("penstock.cli.main", "keeper"), logs, settings),
        _child("io", _python("penstock_worker", "io"), logs, settings, grace_seconds=20),
        last,
    )
    if wish.flower_runs:
        # Only now: a port that was free when everything began may be another's by the time that Flower opens it.
        running.flower_url = f"http://127.0.0.1:{wish.flower_port or ports.preferred_port(5555)}"
        _start(running, _flower(running, running.flower_url, settings))


def _arguments(running: Running, wish: StackOptions, settings: Mapping[str, str]) -> tuple[str, ...]:
    """What the engine of one model is told."""
    if wish.source is not None or not wish.profile.takes_dtype or "PENSTOCK_ENGINE_PYTHON" in settings:
        return wish.engine_args
    added = tiny_model.dtype_arguments(wish.engine_args)
    how = f"with {added[0]}: this CPU emulates bfloat16" if added else "in the dtype of its config or your arguments"
    running.say(f"`{wish.model}` is served {how}")
    return wish.engine_args + added


def _flower(running: Running, url: str, settings: dict[str, str]) -> Child:
    command = ["--address=127.0.0.1", f"--port={url.rpartition(':')[2]}"]
    secrets = {"FLOWER_BASIC_AUTH": f"penstock:{running.flower_password}", "FLOWER_PURGE_OFFLINE_WORKERS": "60"}
    return _child(
        "flower", _python("penstock_worker.runtime.flower_server", *command), running.layout.logs, settings | secrets
    )


def _child(name: str, command: list[str], logs: Path, settings: dict[str, str], grace_seconds: float = 10.0) -> Child:
    environment = child_environment.of(name, settings)
    return Child(name, command, log=logs / f"{name}.log", environment=environment, grace_seconds=grace_seconds)


def _wait_for_engine(running: Running, wish: StackOptions, database_url: str, download: Download | None) -> None:
    """Return once the gpu worker that was started here is ready, or one that the pool's host started."""
    began = told = time.monotonic()
    kind = "pool" if wish.more else "gpu"
    worker = next(child for child in running.children if child.name == kind)
    what = f"pool {local_pool.NAME}" if wish.more else "the engine"
    its_log = worker.log if wish.more else running.layout.logs / f"engine-{model_slug(wish.model)}.log"
    failed = 0
    with _database(database_url) as db:
        first = local_pool.FirstAwake(db, load(), running.say)
        while True:
            _tend_or_give_up(running)
            found = _live(db)
            ours = next((one for one in found if one.kind == kind and one.pid == worker.pid), None)
            if ours and ours.state == "ready" and (not wish.more or first.look()):
                running.say(f"{what} is ready ({time.monotonic() - began:.0f} s)")
                return
            if ours and ours.failed_starts > failed:
                failed = ours.failed_starts
                running.say(f"the engine did not start: {ours.engine_trouble}")
            if ours and failed >= DEATHS_BEFORE_READY:
                raise Problem(f"The engine does not start: {ours.engine_trouble} (its log: {its_log})")
            now = time.monotonic()
            if now - began > wish.ready_seconds:
                raise Problem(f"The engine was not ready after {wish.ready_seconds:.0f} s; see {running.layout.logs}.")
            if now - told >= NEWS_SECONDS:
                doing = (download and download.words()) or f"log: {its_log}"
                running.say(f"waiting for {what}, {now - began:.0f} s so far ({doing})")
                told = now
            time.sleep(TEND_SECONDS)


@contextmanager
def _database(url: str) -> Iterator[Database]:
    db = Database(sync_engine(url, connections=1), lambda hints: None)
    try:
        yield db
    finally:
        db.close()


def _live(db: Database) -> list[Worker]:
    """Who is live; nobody is known while Postgres starts again."""
    try:
        return db.run(health.live, 20)
    except Unavailable:
        return []


def _start_api(running: Running, wish: StackOptions, settings: dict[str, str]) -> None:
    # Again: the engine took its time, and who took the port meanwhile would be taken for our API.
    ports.check_port(wish.host, wish.port, "The API", "--port")
    command = _python("penstock.cli.main", "api", "--host", wish.host, "--port", str(wish.port))
    log = running.layout.logs / "api.log"
    _start(running, _child("api", command, running.layout.logs, settings, grace_seconds=15))
    end = time.monotonic() + API_SECONDS
    while True:
        _tend_or_give_up(running)
        try:
            if httpx.get(f"{running.url}/health/ready", timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > end:
            why = last_lines(log, 1) or "it has said nothing yet"
            raise Problem(f"The API was not ready after {API_SECONDS:.0f} s: {why} (log: {log}).")
        time.sleep(TEND_SECONDS)


def _start(running: Running, *children: Child) -> None:
    for child in children:
        running.children.append(child)
        child.start()


def _tend_or_give_up(running: Running) -> None:
    for child in running.children:
        if why := last_word(child):
            raise Problem(f"{child.name}: {why}")
    running.tend()
    for child in running.children:
        if child.restarts >= DEATHS_BEFORE_READY:
            raise Problem(f"{child.name} keeps ending: {last_lines(child.log, 1)} (log: {child.log})")


def _stop(running: Running) -> None:
    """Stop the servers last, since everyone else needs them to say goodbye."""
    if not running.children:
        return
    running.say("stopping")
    servers = [child for child in running.children if child.name in SERVERS]
    others = [child for child in running.children if child.name not in SERVERS]
    for child in others:
        child.ask_to_stop()
    for child in [*reversed(others), *reversed(servers)]:
        child.stop()


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
