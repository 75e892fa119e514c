"""`make faults`: a house under load, a nemesis for so many seconds, then the history checker. Exit 0 only if all holds.

python -m faults.run --seconds 600 --seed 1 [--pool] [--ensembles]
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from e2e.live import Client, chat
from faults import history, leftovers, recovery
from faults.history import Verdict
from faults.house import House
from faults.nemesis import Nemesis
from faults.proxy import Proxy
from faults.scene import PLAIN, POOL, Scene
from faults.servers import PostgresServer, ValkeyServer
from faults.traffic import ABSENT, Tenant

from penstock.service.admin import models, prices
from penstock.service.core.transaction import Database
from penstock.service.ensembles import ensembles
from penstock.store.engine import sync_engine

TENANTS: Final = ("default", "other")
SECONDS_A_FAULT: Final = 6.0
"""A run that struck less often than this did not do what it promises."""
LONGEST_DRAIN_SECONDS: Final = 300.0
SWEEP: Final = {"sweep_seconds": "0.5", "unfinished_blob_seconds": "1", "pieces_seconds": "1"}


@dataclass
class Run:
    """What one run did and found."""

    seed: int
    seconds: float
    faults: dict[str, int]
    verdict: Verdict
    repeated: int
    unplanned_ends: dict[str, int]
    freed: Sequence[float]
    again: Sequence[float]
    notes: Mapping[str, int] = field(default_factory=dict)
    struck: Sequence[tuple[str, str, int]] = ()

    @property
    def enough(self) -> bool:
        """Whether it struck as often as it promises."""
        return sum(self.faults.values()) >= self.seconds / SECONDS_A_FAULT

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        verdict = self.verdict
        return self.enough and not verdict.breaches and not verdict.lost and not verdict.doubled

    def table(self) -> str:
        """For people."""
        verdict = self.verdict
        rows = [(f"fault: {kind}", str(count)) for kind, count in sorted(self.faults.items())]
        rows += [(f"ended as {state}", str(count)) for state, count in sorted(verdict.batches.items())]
        rows += [("lines accepted", str(verdict.accepted)), ("lines answered", str(verdict.answered))]
        rows += [(f"lines failed: {code}", str(count)) for code, count in sorted(verdict.failed.items()) if count]
        rows += [("lines of batches closed before their plan", str(verdict.never_planned))]
        rows += [("lines lost", str(verdict.lost)), ("lines doubled", str(verdict.doubled))]
        rows += [("questions to engines", str(verdict.asked)), ("of these, asked again", str(verdict.recomputed))]
        rows += [("engines that one poison line met at most", str(verdict.deadliest))]
        rows += [("requests sent again", str(self.repeated))]
        rows += [(f"unplanned end: {how}", str(count)) for how, count in sorted(self.unplanned_ends.items())]
        rows += [(note, str(count)) for note, count in sorted(self.notes.items())]
        rows += [("kill to free again, s (p50, max)", _spread(self.freed))]
        rows += [("kill to running again, s (p50, max)", _spread(self.again))]
        return "\n".join(f"  {name:<48}{value}" for name, value in rows)

    def json(self) -> dict[str, Any]:
        """For machines."""
        return {**vars(self), "verdict": vars(self.verdict), "passed": self.passed}

    def line(self) -> str:
        """One line that says it all."""
        verdict = self.verdict
        return (
            f"faults: {'PASS' if self.passed else 'FAIL'} seed={self.seed} seconds={self.seconds:g}"
            f" faults={sum(self.faults.values())} lines={verdict.accepted} lost={verdict.lost}"
            f" doubled={verdict.doubled} breaches={len(verdict.breaches)}"
        )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f}, {max(values):.1f} (of {len(values)})" if values else "none"


@contextmanager
def built(
    scene: Scene, folder: Path, journal: Path
) -> Iterator[tuple[House, PostgresServer, ValkeyServer, dict[str, Proxy]]]:
    """Servers, networks and a house, all of it ended at the end."""
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(folder))
        valkey = stack.enter_context(ValkeyServer(folder))
        networks = {name: stack.enter_context(Proxy(postgres.socket)) for name in scene.proxied}
        db = Database(sync_engine(postgres.url, connections=1), lambda hints: None)
        db.run(models.add, ABSENT)
        for model in scene.models:
            db.run(models.add, model)
            db.run(prices.set_price, model, input="0.15", cached_input="0.015", output="0.6", gpu_second="0.0008")
        for panel in scene.panels:
            db.run(ensembles.add, panel.definition)
        db.close()
        house = stack.enter_context(
            House(
                postgres.url,
                valkey.url,
                folder,
                keepers=2,
                ios=2,
                model=scene.models[0],
                own=_own(folder, postgres, networks),
                **scene.parts(journal),
                **scene.settings,
            )
        )
        yield house, postgres, valkey, networks


def _own(folder: Path, postgres: PostgresServer, networks: Mapping[str, Proxy]) -> dict[str, dict[str, str]]:
    """A network of their own for some, and one scratch folder for the io workers, as on one host."""
    own = {name: {"database_url": postgres.proxied(proxy.port)} for name, proxy in networks.items()}
    for name in ("io-1", "io-2"):
        own.setdefault(name, {})["scratch_dir"] = str(folder / "scratch")
    return own


def run(scene: Scene, seconds: float, seed: int, poison: bool, folder: Path, tell: Any) -> Run:
    """One whole run."""
    journal = folder / "journal"
    with built(scene, folder, journal) as (house, postgres, valkey, networks):
        tell("the house stands")
        nemesis = scene.nemesis(house, postgres, valkey, networks, seed, scene.kinds, scene.models)
        tenants = [
            Tenant(name, house.url, house.key_of(name), seed, poison, scene.models, scene.panels) for name in TENANTS
        ]
        for tenant in tenants:
            tenant.start()
        try:
            _strike(nemesis, tenants, seconds, tell)
        except KeyboardInterrupt:
            tell("stopped; what is accepted is checked all the same")
        for tenant in tenants:
            tenant.stop()
        nemesis.calm()
        tell("no more faults; everything is up")
        for tenant in tenants:
            tenant.wait(60)
        accepted = [one for tenant in tenants for one in tenant.accepted]
        for one in accepted:
            one.hurried |= one.id in nemesis.hurried
        verdict = Verdict(breaches=[text for tenant in tenants for text in tenant.broken])
        verdict.broken(_drain(house, nemesis, tell))
        clients: dict[str, Client] = {name: house.client_of(name) for name in TENANTS}
        tell("checking")
        _add(verdict, history.judge(postgres.url, accepted, clients, house.blobs, journal))
        verdict.broken(_sweep(house, scene.models, tell))
        verdict.broken(scene.end(house))
        verdict.breaches[:0] = nemesis.breaches
        freed, again = recovery.recoveries(postgres.url, nemesis.kills)
        notes = {
            **scene.notes(house),
            "batches and jobs that were paused for a while": sum(one.pauses for one in tenants),
        }
    return Run(
        seed,
        seconds,
        dict(nemesis.counts),
        verdict,
        sum(tenant.repeated for tenant in tenants),
        dict(nemesis.deaths),
        freed,
        again,
        notes,
        nemesis.struck,
    )


def _strike(nemesis: Nemesis, tenants: Sequence[Tenant], seconds: float, tell: Any) -> None:
    end, next_word = time.monotonic() + seconds, time.monotonic()
    while (now := time.monotonic()) < end:
        nemesis.tend()
        if now >= next_word:
            next_word = now + 10
            accepted = [one for tenant in tenants for one in list(tenant.accepted)]
            lines = sum(len(one.lines) for one in accepted)
            open_ = sum(len(tenant.open) for tenant in tenants)
            tell(f"faults {nemesis.counts.total()}, batches {len(accepted)}, lines {lines}, open {open_}")
        time.sleep(0.05)


def _drain(house: House, nemesis: Nemesis, tell: Any) -> list[str]:
    """Wait until everything has ended; what does not is a breach."""
    unfinished = "select id, state, finish_as from batches where state not in %s"
    ended = "('completed', 'cancelled', 'expired', 'failed')"
    end = time.monotonic() + LONGEST_DRAIN_SECONDS
    while left := house.rows(unfinished.replace("%s", ended)):
        # What waits for a model that nobody serves is due now.
        house.sql(
            "update batches set deadline = clock_timestamp() where completion_window = '1m' and finish_as is null"
        )
        if time.monotonic() > end:
            slices = house.rows("select batch, state, count(*) from slices where batch = %s group by 1, 2", left[0][0])
            return [f"{row} has not ended after {LONGEST_DRAIN_SECONDS:g} s: {slices}\n{house.tell()}" for row in left]
        nemesis.tend(strike=False)
        time.sleep(0.2)
    tell("everything has ended")
    return []


def _add(verdict: Verdict, more: Verdict) -> None:
    more.breaches[:0] = verdict.breaches
    verdict.__dict__.update(more.__dict__)


def _sweep(house: House, models: Sequence[str], tell: Any) -> list[str]:
    """See that each model is served, let the keepers sweep at once, and say what is left.

    Whoever needs scratch next clears what dead ones left.
    """
    client = house.client_of(TENANTS[0])
    for batch in [client.submit([chat("last", "hello", model)]) for model in models]:
        client.ended(batch.id, 120)
    for name in house.named("keeper"):
        house.restart(name, 60, **SWEEP)
    end = time.monotonic() + 120
    while (left := leftovers.leftovers(house.database_url, house.blobs, house.scratch)) and time.monotonic() < end:
        time.sleep(0.5)
    tell("swept")
    return left


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, and write what came of it."""
    parser = argparse.ArgumentParser(prog="faults.run", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pool", action="store_true", help="two hosts of one pool, whose four versions take turns")
    parser.add_argument(
        "--ensembles", action="store_true", help="ensembles of each kind that gathers among what is asked"
    )
    parser.add_argument("--no-poison", action="store_true", help="no line that kills its engine")
    parser.add_argument("--keep", action="store_true", help="keep logs, database and blobs")
    parser.add_argument("--out", type=Path, default=Path("data"))
    given = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    for number in (signal.SIGINT, signal.SIGTERM):  # also in the background of a shell, where SIGINT is ignored
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"[faults] {time.monotonic() - began:6.1f} s  {what}", flush=True)

    folder = Path(tempfile.mkdtemp(prefix="ps-"))
    folder.chmod(0o755)  # the database server is an ordinary user where we are root
    keep = given.keep
    try:
        scene = POOL if given.pool else PLAIN
        scene = scene.with_panels if given.ensembles else scene
        done = run(scene, given.seconds, given.seed, not given.no_poison, folder, tell)
        keep |= not done.passed
    except BaseException:
        keep = True
        raise
    finally:
        if keep:
            tell(f"logs, database and blobs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    given.out.mkdir(parents=True, exist_ok=True)
    name = "-".join(["faults", *["pool"] * given.pool, *["ensembles"] * given.ensembles, str(given.seed)])
    (given.out / f"{name}.json").write_text(json.dumps(done.json(), indent=2) + "\n")
    for breach in done.verdict.breaches:
        print(f"BREACH: {breach}")
    print(done.table())
    print(done.line(), flush=True)
    return 0 if done.passed else 1


if __name__ == "__main__":
    sys.exit(main())
