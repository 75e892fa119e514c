"""`python -m penstock_worker tune`: from a command line to what is printed, written and kept."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from penstock.domain.api_errors import BadRequest
from penstock.domain.engines.profiles import PROFILES, VLLM
from penstock.domain.models.name import check_name
from penstock.domain.work.lane import model_slug
from penstock.model_source.look import look
from penstock.model_source.no_model import NoModel
from penstock.settings import Settings
from penstock_worker.engine import device, kind
from penstock_worker.engine.launch_spec import BadLaunch, Launch
from penstock_worker.engine.process.process_record import InUse
from penstock_worker.engine.vllm.vllm_server import gpus
from penstock_worker.tuning import grid, tuning_record, waking
from penstock_worker.tuning.grid import Coordinate
from penstock_worker.tuning.trial import TrialPlan
from penstock_worker.tuning.tune import TuningTime, lines_for, tune
from penstock_worker.tuning.tuning_outcome import TuningOutcome
from penstock_worker.tuning.waking import SleepTerms

INTERRUPTED: Final = 130


class TimeIsOver(Exception):
    """What runs is to end now."""


_ENDS: Final[Mapping[signal.Signals, type[BaseException]]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: KeyboardInterrupt,
    signal.SIGALRM: TimeIsOver,
}


def _once(told: type[BaseException]) -> Callable[..., NoReturn]:
    """A signal's handler that raises this; none that comes later disturbs the clean-up."""

    def hear(*_: object) -> NoReturn:
        for one in _ENDS:
            signal.signal(one, signal.SIG_IGN)
        raise told

    return hear


def add_to(parser: argparse.ArgumentParser) -> None:
    """What the command takes; `penstock tune` says what it means."""
    add = parser.add_argument
    add("--model", required=True, metavar="[NAME=]DIR_OR_HF_ID")
    add("--engine", choices=tuple(PROFILES), default=VLLM.name)
    add("--engine-arg", action="append", default=[], metavar="ARG")
    add("--grid", action="append", default=[], metavar="ARGUMENT=VALUE,VALUE")
    add("--lines", type=int)
    add("--minutes", type=float, default=60.0)
    add("--output", type=Path)
    add("--json", action="store_true")


def main(settings: Settings, given: argparse.Namespace) -> int:
    """Tune, and say what was found; the exit status."""
    try:
        return _run(settings, given)
    except KeyboardInterrupt:  # before anything was started
        return INTERRUPTED


def _run(settings: Settings, given: argparse.Namespace) -> int:
    name, named, source = given.model.partition("=")
    source = source if named else name
    base = tuple(given.engine_arg)
    slug = model_slug(name)
    folder = settings.runtime_dir / f"tune-{slug}"
    output = given.output or Path(f"tuning-{slug}.json")

    def launch(arguments: tuple[str, ...]) -> Launch:
        return kind.launch(
            given.engine,
            model=name,
            source=source,
            socket=folder / "engine.sock",
            arguments=arguments,
            environ=waking.environment(given.engine, arguments, os.environ),
            python=os.environ.get("PENSTOCK_ENGINE_PYTHON", sys.executable),
        )

    try:
        check_name(name)
        if not source:
            raise BadLaunch(f"{given.model!r} names no source: say NAME=SOURCE.")
        described, coordinates = _plan(launch, base, given.grid)
        download = look(source, base, described.environment, described.profile.source)
    except (BadLaunch, NoModel, BadRequest) as error:
        _say(f"penstock tune: {error}")
        return 1
    if why := tuning_record.why_not_written(output):
        _say(f"penstock tune: {why}; say another with --output.")
        return 1
    lines = given.lines or lines_for(described, coordinates)
    found = TuningOutcome(name, source, given.engine, base, device.of(described), lines)
    _announce(found, coordinates)
    if download is not None:
        _say("The model is downloaded first: the first point's load time includes that.")
    sleep = SleepTerms(settings.pool_sleep_seconds, settings.pool_sleep_frees)
    plan = TrialPlan(launch, folder, settings.log_dir / f"tune-{slug}.log", lines, sleep=sleep)
    # What an engine dies of is told with its point.
    logging.getLogger("penstock_worker").setLevel(logging.CRITICAL + 1)
    for one, told in _ENDS.items():
        signal.signal(one, _once(told))
    signal.setitimer(signal.ITIMER_REAL, given.minutes * 60)
    interrupted = False
    try:
        tune(found, plan, coordinates, TuningTime(given.minutes), _say)
    except KeyboardInterrupt:
        interrupted, found.cut = True, "It was interrupted."
    except TimeIsOver:
        found.cut = "Time was over (--minutes)."
    except InUse:
        _say(f"penstock tune: Another `penstock tune` of {name} runs on this machine.")
        return 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    _tell(found, settings, output, as_json=given.json)
    if interrupted:
        return INTERRUPTED
    return 0 if found.chosen else 1


def _plan(
    launch: Callable[[tuple[str, ...]], Launch], base: tuple[str, ...], asked: Sequence[str]
) -> tuple[Launch, tuple[Coordinate, ...]]:
    """How the base is started, and what is tried. Raises BadLaunch."""
    described = launch(base)
    if described.profile.is_elsewhere:
        raise BadLaunch("An engine that runs elsewhere is tuned where it runs.")
    if asked:
        return described, tuple(map(grid.read, asked))
    flag = grid.sequences_flag(described)
    own = launch(Coordinate(flag, ()).turned(base, grid.OWN)) if flag else described
    return described, grid.usual(described, own, len(gpus()) if device.on_gpus(described) else 0)


def _announce(found: TuningOutcome, coordinates: Sequence[Coordinate]) -> None:
    starts = 1 + sum(len(one.values) for one in coordinates)
    tried = "; ".join(f"{one.flag} {', '.join(one.values)}" for one in coordinates) or "nothing else"
    _say(f"{found.model} on {found.device}: {tried}; {starts} starts at most, {found.lines} lines a round,")
    _say("then the best and the default in turns until it is clear. Ctrl-C ends it, and prints what it has.")


def _tell(found: TuningOutcome, settings: Settings, output: Path, *, as_json: bool) -> None:
    """Print it, write it, keep it."""
    if as_json:
        print(json.dumps(found.document(), indent=2, ensure_ascii=False), flush=True)
    else:
        table = (*found.table(), "") if found.points else ()
        for line in (*table, found.words, *filter(None, (found.cut, found.command))):
            print(line, flush=True)
    if not found.points:
        return
    why = tuning_record.in_file(output, found.document())
    _say(f"Not written: {why}." if why else f"Written to {output}.")
    why = tuning_record.in_database(settings.database_url, found.tunings())
    _say(f"Not kept in the database: {why}" if why else "Kept in the database: `penstock models show` has it.")


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
