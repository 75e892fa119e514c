"""A trial: one start of the engine with some arguments, what is measured of it, and its end."""

from __future__ import annotations

import asyncio
import queue
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from penstock_worker.admission.gate import Gate
from penstock_worker.engine import device, device_memory, revision
from penstock_worker.engine.client import EngineClient, EngineGone, EngineTimeout
from penstock_worker.engine.launch_spec import BadLaunch, Launch
from penstock_worker.engine.process.supervisor import Supervisor
from penstock_worker.runtime.loop_thread import LoopThread
from penstock_worker.tuning import memory, waking, workload
from penstock_worker.tuning.coordinate_search import TuningPoint
from penstock_worker.tuning.speed import WorkFailed, ask, ask_all, tokens_per_second
from penstock_worker.tuning.waking import SleepTerms
from penstock_worker.tuning.workload import ENDPOINTS, LineShape

LINE_SECONDS: Final = 900.0
_WARM_UP_LINES: Final = 64
_PROBE_WORDS: Final = (50, 250)
_MOST_TROUBLE: Final = 400
_TOLD_DEAD_SECONDS: Final = 3.0
_LABELS: Final = re.compile(r'(\w+)="([^"]*)"')
_FAILURES: Final = (WorkFailed, EngineGone, EngineTimeout, OSError)


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of one tuning have in common."""

    launch: Callable[[tuple[str, ...]], Launch]
    """Describes a start with these arguments. Raises BadLaunch."""
    folder: Path
    """Of sockets and process records."""
    log_path: Path
    lines: int
    """How many a round has."""
    rounds: int = 2
    sleep: SleepTerms = field(default_factory=SleepTerms)


def measure(plan: TrialPlan, arguments: tuple[str, ...], *, rounds: int | None = None, seed: int = 1) -> TuningPoint:
    """Start the engine so, measure it, end it. What goes wrong is in the point. `seed` is the workload's."""
    point = TuningPoint(arguments)
    try:
        launch = plan.launch(arguments)
        point = replace(point, digest=revision.of(launch) or None)
        with started(plan, launch) as running:
            point = replace(point, load_seconds=running.load_seconds, memory_bytes=running.memory_bytes())
            shape = running.wait(_shape(running.client, running.gate, launch.model))
            running.wait(_round(running, shape, min(plan.lines, max(_WARM_UP_LINES, launch.batch_slots)), 0))
            speeds = [
                running.wait(_round(running, shape, plan.lines, seed + number))
                for number in range(rounds or plan.rounds)
            ]
            kv_tokens = running.wait(_kv_tokens(running.client, launch))
            point = replace(point, tokens_per_second=sum(speeds) / len(speeds), kv_tokens=kv_tokens)
            return (
                point
                if rounds
                else replace(point, wake_seconds=waking.seconds(launch, plan.sleep, running.used_before))
            )
    except (BadLaunch, *_FAILURES) as error:
        return replace(point, trouble=_line(str(error)))


@dataclass(frozen=True)
class RunningEngine:
    """An engine that is ready."""

    launch: Launch
    supervisor: Supervisor
    client: EngineClient
    gate: Gate
    loop: LoopThread
    died: Future[str]
    """Comes to why it died, if it does."""
    load_seconds: float
    used_before: int | None
    """Bytes of GPU memory that were in use before it started; None where it computes on a CPU."""

    def wait(self, coroutine: Any) -> Any:
        """What it comes to; whatever interrupts the wait ends it."""
        future: Future[Any] = self.loop.run(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def memory_bytes(self) -> int | None:
        """What the engine takes: of GPUs where it computes on them, else its processes."""
        if self.used_before is not None:
            used = device_memory.used_bytes()
            return None if used is None else max(0, used - self.used_before)
        return memory.of_processes(process.pid for process in self.supervisor.processes)


@contextmanager
def started(plan: TrialPlan, launch: Launch) -> Iterator[RunningEngine]:
    """An engine that is ready, until the end of `with`. Raises WorkFailed if it does not start."""
    news: queue.SimpleQueue[str] = queue.SimpleQueue()
    died: Future[str] = Future()

    def mourn(reason: str) -> None:
        news.put(reason)
        if not died.done():
            died.set_result(reason)

    before = device_memory.used_bytes() if device.on_gpus(launch) else None
    with ExitStack() as stack:
        loop = stack.enter_context(LoopThread())
        client = EngineClient(socket=launch.socket, profile=launch.profile)
        stack.enter_context(loop.living(client))
        begun = time.monotonic()
        supervisor = stack.enter_context(
            Supervisor(
                launch,
                runtime_dir=plan.folder,
                log_path=plan.log_path,
                on_ready=lambda generation: news.put(""),
                on_death=lambda generation, reason: mourn(reason),
            )
        )
        if news.get():
            trouble = supervisor.trouble
            raise WorkFailed(trouble.why if trouble else supervisor.reason)
        gate = Gate(launch.batch_slots, launch.engine_slots, launch.overtakers)
        yield RunningEngine(launch, supervisor, client, gate, loop, died, time.monotonic() - begun, before)


async def _shape(client: EngineClient, gate: Gate, model: str) -> LineShape:
    """What its lines may be: asked of the engine. Raises WorkFailed if it answers to none."""
    context = await _context(client)
    trouble = WorkFailed("it answers nothing")
    for endpoint in ENDPOINTS:
        shape = LineShape(endpoint, context=context)
        few, many = _PROBE_WORDS
        try:
            told = [
                (
                    await ask(client, gate, endpoint.url, workload.body(shape, model, words, 1, words), LINE_SECONDS)
                ).tokens
                for words in (few, many)
            ]
        except WorkFailed as error:
            trouble = error
            continue
        return replace(shape, tokens_per_word=max(0.1, (told[1] - told[0]) / (many - few)))
    raise trouble


async def _context(client: EngineClient) -> int:
    """How many tokens a prompt and its answer may have together, where the engine says so."""
    with suppress(*_FAILURES):
        found = re.search(r'"max_model_len": ?(\d+)', await client.metrics("/v1/models"))
        if found:
            return int(found[1])
    return LineShape.context


async def _round(running: RunningEngine, shape: LineShape, lines: int, seed: int) -> float:
    bodies = list(workload.lines(shape, running.launch.model, lines, seed))
    # A death that its connections do not show is a hang that the watchdog ends.
    dead = asyncio.wrap_future(running.died)
    work = asyncio.ensure_future(ask_all(running.client, running.gate, shape.endpoint.url, bodies, LINE_SECONDS))
    try:
        both: tuple[asyncio.Future[Any], ...] = (dead, work)
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if work.done() and isinstance(work.exception(), EngineGone):
            await asyncio.wait({dead}, timeout=_TOLD_DEAD_SECONDS)
        if dead.done():
            why = dead.result().partition(" The last lines of ")[0]
            raise WorkFailed(f"it died at work: {why}")
        return tokens_per_second(work.result())
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _kv_tokens(client: EngineClient, launch: Launch) -> int | None:
    """What its KV cache holds, all data-parallel engines together; None if the engine does not say."""
    load = launch.profile.load
    if load is None or load.kv_config is None:
        return None
    with suppress(EngineGone, EngineTimeout, ValueError, KeyError):
        return kv_tokens(await client.metrics(load.path), load.kv_config)
    return None


def kv_tokens(page: str, metric: str) -> int | None:
    """The same, off a metrics page."""
    rows = re.findall(rf"^{re.escape(metric)}\{{(.*)\}} ", page, re.MULTILINE)
    sizes = [dict(_LABELS.findall(row)) for row in rows]
    return sum(int(one["num_gpu_blocks"]) * int(one["block_size"]) for one in sizes) or None


def _line(text: str) -> str:
    """What went wrong, on one line."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= _MOST_TROUBLE else words[: _MOST_TROUBLE - 1] + "…"


def speeds(plan: TrialPlan, sides: Sequence[tuple[str, ...]], seed: int) -> list[float] | None:
    """One round of each, each in a start of its own, in this order; None if one does not work this time."""
    found = []
    for arguments in sides:
        speed = measure(plan, arguments, rounds=1, seed=seed).tokens_per_second
        if speed is None:
            return None
        found.append(speed)
    return found
