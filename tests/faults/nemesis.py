"""The nemesis: faults drawn from one seed strike a living house, again and again, while it works.

The sequence of faults, their victims and the pauses between them follow from the seed alone. What each of them meets
does not: these are real processes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import psycopg
import redis
from faults.house import MODEL, House
from faults.proxy import Proxy
from faults.servers import PostgresServer, ValkeyServer

from penstock.domain.work import hint
from penstock.domain.work.lane import LANES
from penstock.wire.hints import Hinter

LEASE_SECONDS: Final = 5.0
LONGEST_END_SECONDS: Final = 60.0
"""A process that was told to end and has not after this long is a breach: 30 s of grace, on a busy machine."""
PAUSES: Final = (2.0, 6.0)
"""Shortest and longest time between two faults: 150 in ten minutes."""

KINDS: Final = {
    "kill gpu": 14,
    "kill engine": 10,
    "kill io": 8,
    "kill keeper": 5,
    "kill api": 6,
    "kill all gpus": 2,
    "restart gpu": 8,
    "restart io": 3,
    "restart keeper": 2,
    "restart api": 3,
    "stop gpu past its lease": 8,
    "stop gpu shortly": 4,
    "stop io past its lease": 4,
    "stop engine shortly": 3,
    "stop api shortly": 2,
    "redis flushed": 6,
    "redis killed": 5,
    "redis paused": 4,
    "redis frozen": 3,
    "postgres killed": 6,
    "cut from postgres": 7,
    "hung from postgres": 5,
    "answers of postgres lost": 5,
    "slow to postgres": 2,
    "hints doubled": 4,
    "hints foreign": 3,
    "deadline passed": 5,
}
"""How often each kind is drawn, in parts of all."""

OF_FOLDS: Final = {"kill io in a fold": 16, "stop io past its lease": 8, "hints doubled": 8}
"""Where there are ensembles."""
_STEPS_OF_FOLDS: Final = ("fold.folded", "fold.recording", "fold.recorded", "fold.asking", "fold.asked")


@dataclass(frozen=True)
class Fault:
    """One fault as it was drawn."""

    kind: str
    victim: int
    """Which of those that it may strike, modulo their number."""
    seconds: float
    """How long what is not over at once lasts."""
    pause_seconds: float
    """Until the next fault."""


def drawn(seed: int, kinds_and_weights: Mapping[str, int] = KINDS) -> Iterator[Fault]:
    """The faults of a seed, without end; each kind comes once before they are drawn by their weights."""
    chance = random.Random(seed)
    first = list(kinds_and_weights)
    chance.shuffle(first)
    kinds, weights = list(kinds_and_weights), list(kinds_and_weights.values())
    while True:
        kind = first.pop() if first else chance.choices(kinds, weights)[0]
        yield Fault(kind, chance.randrange(1_000), chance.uniform(0.3, 3.0), chance.uniform(*PAUSES))


@dataclass
class Nemesis:
    """Draws faults, and starts again what died. Everything happens in the thread that calls `tend`."""

    house: House
    postgres: PostgresServer
    valkey: ValkeyServer
    networks: Mapping[str, Proxy]
    """Between Postgres and the process of this name."""
    seed: int
    kinds: Mapping[str, int] = field(default_factory=lambda: KINDS)
    models: Sequence[str] = (MODEL,)
    counts: Counter[str] = field(default_factory=Counter)
    struck: list[tuple[str, str, int]] = field(default_factory=list)
    """When, what, and whom (as it was drawn, or a pid): to read beside the logs."""
    kills: list[tuple[UUID, float]] = field(default_factory=list)
    """Gpu workers that were killed: their holder ids, and when."""
    deaths: Counter[str] = field(default_factory=Counter)
    """Processes that ended though nobody killed them: a breach."""
    breaches: list[str] = field(default_factory=list)
    hurried: set[str] = field(default_factory=set)
    """Batches whose deadline was set to now."""

    def __post_init__(self) -> None:
        self._faults = drawn(self.seed, self.kinds)
        self._chance = random.Random(f"{self.seed} restarts")
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._next_at = time.monotonic()
        self._restarts_at: dict[str, float] = {}
        self._told_to_end: dict[str, float] = {}
        self._stopped: dict[str, int] = {}
        self._killed: set[int] = set()
        self._armed: dict[str, str] = {}
        self._hinter = Hinter(self.valkey.url, 1.0)

    # One turn, and the end.

    def tend(self, strike: bool = True) -> None:
        """One turn: what is due is undone, what died is started again, and the next fault strikes if it is time."""
        now = time.monotonic()
        for item in [item for item in self._due if item[0] <= now]:
            self._due.remove(item)
            item[1]()
        self._supervise(now)
        if strike and now >= self._next_at:
            fault = next(self._faults)
            self._next_at = now + fault.pause_seconds
            if self._strike(fault):
                self.counts[fault.kind] += 1
                self._note(fault.kind, fault.victim)

    def _note(self, what: str, whom: int) -> None:
        self.struck.append((datetime.now(UTC).isoformat(timespec="seconds"), what, whom))

    def calm(self, seconds: float = 600.0) -> None:
        """Undo everything now, and return once all processes run and are ready."""
        for _, undo in sorted(self._due, key=lambda item: item[0]):
            undo()
        self._due.clear()
        for name in set(self._armed):
            self._disarm(name)
        end = time.monotonic() + seconds
        while self._told_to_end or any(not self.house.lives(name) for name in self.house.residents):
            assert time.monotonic() < end, f"the house does not come back\n{self.house.tell()}"
            self.tend(strike=False)
            time.sleep(0.05)
        self.house.wait_until_ready(seconds)
        self._hinter.close()

    def _supervise(self, now: float) -> None:
        for name in self.house.residents:
            if self.house.lives(name):
                if (told := self._told_to_end.get(name)) and now > told + LONGEST_END_SECONDS:
                    self.breaches.append(f"{name} did not end within {LONGEST_END_SECONDS:g} s of SIGTERM")
                    self.breaches[-1] += f"\n{self.house.tell(name)}"
                    self._kill(name)
                continue
            if name not in self._restarts_at:
                if name not in self._told_to_end and self.house.pid(name) not in self._killed:
                    code = self.house.wait(name)
                    self.deaths[f"{name.partition('-')[0]} ended with {code}"] += 1
                self._restarts_at[name] = now + self._chance.uniform(0.1, 2.0)
            elif now >= self._restarts_at[name]:
                del self._restarts_at[name]
                self._told_to_end.pop(name, None)
                self._stopped.pop(name, None)
                point = self._armed.get(name)
                self.house.start(name, **({"failpoints": point} if point else {}))
                if point:
                    self._killed.add(self.house.pid(name))
                self._note(f"{name} started", self.house.pid(name))

    # Faults. Each says whether there was something to strike.

    def _strike(self, fault: Fault) -> bool:
        what, _, how = fault.kind.partition(" ")
        if what == "kill":
            return self._strike_dead(how, fault)
        if what == "restart":
            return self._tell_to_end(self._victim(how, fault))
        if what == "stop":
            return self._freeze(how, fault)
        if what == "redis":
            return self._strike_redis(how, fault)
        if fault.kind == "postgres killed":
            return self._strike_postgres(fault)
        if what == "hints":
            return self._say(how, fault)
        if fault.kind == "deadline passed":
            return self._pass_deadline(fault)
        return self._strike_network(fault)

    def _victim(self, kind: str, fault: Fault) -> str | None:
        alive = [name for name in self.house.named(kind) if self.house.lives(name) and name not in self._stopped]
        return alive[fault.victim % len(alive)] if alive else None

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, undo))

    def _strike_dead(self, what: str, fault: Fault) -> bool:
        if what == "all gpus":
            alive = [name for name in self.house.named("gpu") if self.house.lives(name)]
            for name in alive:
                self._kill(name)
            return bool(alive)
        if what == "engine":
            name = self._victim("gpu", fault)
            return name is not None and self.house.kill_engine(name)
        if what == "io in a fold":
            return self._arm(self._victim("io", fault), fault)
        name = self._victim(what, fault)
        if name is None:
            return False
        self._kill(name)
        return True

    def _arm(self, name: str | None, fault: Fault) -> bool:
        """Kill it, and let the next one die in a step of its folds."""
        if name is None or name in self._armed:
            return False
        self._armed[name] = f"{_STEPS_OF_FOLDS[fault.victim % len(_STEPS_OF_FOLDS)]}=kill@{1 + fault.victim % 4}"
        self._kill(name)
        self._later(20 + fault.seconds, lambda: self._disarm(name))
        return True

    def _disarm(self, name: str) -> None:
        """Its next start is an ordinary one; one that never came to its step is killed where it is."""
        if self._armed.pop(name, None) and self.house.lives(name):
            self._kill(name)

    def _kill(self, name: str) -> None:
        holders, at = self._holders(name), time.time()
        self._killed.add(self.house.pid(name))
        self.house.kill(name)
        self.kills += [(holder, at) for holder in holders]

    def _holders(self, name: str) -> list[UUID]:
        """Who holds leases of slices that die with it, as far as is known."""
        if not name.startswith("gpu-"):
            return []
        with suppress(psycopg.Error):  # Postgres is away
            if holder := self.house.holder(name):
                return [holder]
        return []

    def _tell_to_end(self, name: str | None) -> bool:
        if name is None or name in self._told_to_end:
            return False
        self._told_to_end[name] = time.monotonic()
        self.house.terminate(name)
        return True

    def _freeze(self, how: str, fault: Fault) -> bool:
        what, _, long = how.partition(" ")
        name = self._victim("gpu" if what == "engine" else what, fault)
        if name is None:
            return False
        pid = self.house.pid(name)
        frozen = [process.pid for process in self.house.engine(name)[1:]] if what == "engine" else [pid]
        seconds = LEASE_SECONDS + 2.0 + fault.seconds if long.startswith("past") else fault.seconds
        for one in frozen:
            _signal(one, signal.SIGSTOP)
        self._stopped[name] = pid

        def thaw() -> None:
            for one in frozen:
                _signal(one, signal.SIGCONT)
            if self._stopped.get(name) == pid:
                del self._stopped[name]

        self._later(seconds, thaw)
        return bool(frozen)

    def _strike_redis(self, how: str, fault: Fault) -> bool:
        if not self._up(self._redis_answers):
            return False
        if how == "flushed":
            self.valkey.client.flushall()
        elif how == "paused":
            self.valkey.client.client_pause(int(fault.seconds * 1_000))
        elif how == "frozen":
            self.valkey.stop()
            self._later(fault.seconds, self.valkey.cont)
        else:
            self.valkey.end()
            self._later(fault.seconds, self.valkey.start)
        return True

    def _redis_answers(self) -> object:
        return self.valkey.client.ping()

    def _up(self, look: Callable[[], object]) -> bool:
        try:
            look()
        except (redis.RedisError, psycopg.Error):
            return False
        return True

    def _strike_postgres(self, fault: Fault) -> bool:
        if not self._up(lambda: self.postgres.ask("select 1")):
            return False
        self.postgres.end()
        self._later(fault.seconds / 2, self.postgres.start)
        return True

    def _strike_network(self, fault: Fault) -> bool:
        network = list(self.networks.values())[fault.victim % len(self.networks)]
        if fault.kind == "cut from postgres":
            network.cut()
        elif fault.kind == "hung from postgres":
            network.hang()
        elif fault.kind == "slow to postgres":
            network.delay(0.1)
        else:
            network.lose_answers(b"", times=3)
        self._later(fault.seconds * (3 if fault.victim % 3 == 0 else 1), network.heal)
        return True

    def _say(self, how: str, fault: Fault) -> bool:
        if how == "doubled":
            try:
                open_ = self.house.rows("select id from batches order by created_at desc limit 20")
            except psycopg.Error:
                return False
            hints = [hint.generate(model, lane) for model in self.models for lane in LANES] * 5
            hints += [say(id) for (id,) in open_ for say in (hint.validate, hint.assemble, hint.fold)]
        else:
            hints = [hint.validate("batch_of_nobody"), hint.assemble("batch_of_nobody"), hint.validate("")]
            hints += [hint.fold("batch_of_nobody"), hint.fold("")]
            hints += [hint.Hint("penstock.generate", hint.generate(self.models[0], LANES[0]).queue, {"model": "x"})]
        random.Random(fault.victim).shuffle(hints)
        self._hinter.say(hints)
        return True

    def _pass_deadline(self, fault: Fault) -> bool:
        try:
            open_ = self.house.rows("select id from batches where finish_as is null order by id")
            if not open_:
                return False
            (id,) = open_[fault.victim % len(open_)]
            self.hurried.add(id)
            self.house.sql("update batches set deadline = clock_timestamp() where id = %s and finish_as is null", id)
        except psycopg.Error:
            return False
        return True


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
