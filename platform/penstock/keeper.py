"""The keeper: ticks that feed, reap, expire and move on. Several may run; each tick is safe if two do it at once."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import Unavailable
from penstock.domain.work.holder import Holder
from penstock.failpoint import arm, failpoint
from penstock.service.admin import samples, sweep, tally
from penstock.service.calls import ingresses
from penstock.service.control import budgets, cancel, erasure
from penstock.service.core.transaction import Database
from penstock.service.estimates import first_expectations
from penstock.service.evals import eval_work
from penstock.service.lifecycle import dispatch, folds, measure, work
from penstock.service.models import guard as model_guard
from penstock.service.pools import wants
from penstock.settings import Settings, connections, load
from penstock.settings.calls import CallSettings
from penstock.settings.dispatch import DispatchSettings
from penstock.settings.leases import LeaseSettings
from penstock.store import revision
from penstock.store.engine import sync_engine
from penstock.wire.hints import Hinter

log = structlog.get_logger()

_ENDS: Final = (signal.SIGTERM, signal.SIGINT)
_NEWS_SECONDS: Final = 10.0
_COUNTED_TICKS: Final = 10
"""Ticks are counted for metrics so many at a time."""


def reap(db: Database, settings: Settings) -> int:
    """Free what silent holders held."""
    silent = db.run(dispatch.silent_batches)
    if silent:
        failpoint("keeper.reaping")
    return sum(db.run(dispatch.reap, batch) for batch in silent)


def expire(db: Database, settings: Settings) -> int:
    """Close batches whose deadline has passed."""
    return sum(db.run(cancel.expire, batch) for batch in db.run(dispatch.overdue))


def move_on(db: Database, settings: Settings) -> int:
    """Move batches on whose last slice was closed by somebody who died then."""
    return sum(db.run(dispatch.move_on, batch) for batch in db.run(dispatch.stuck))


def feed(db: Database, settings: DispatchSettings) -> int:
    """Keep every live worker's ready list filled."""
    return db.run(dispatch.feed_all, settings)


def hint_again(db: Database, settings: DispatchSettings) -> int:
    """Repeat hints that may be lost."""
    return db.run(dispatch.hint_again, settings)


def evaluate(db: Database, settings: DispatchSettings) -> int:
    """Let runs of evals be scored whose batch has ended, and repeat hints of theirs that may be lost."""
    return db.run(eval_work.move_on) + db.run(eval_work.hint_again, settings)


def promote(db: Database, settings: DispatchSettings) -> int:
    """Let batches that run out of time rise by one lane, and those that have enough of it again fall back."""
    return sum(db.run(dispatch.put, *found, settings) for found in db.run(dispatch.misplaced, settings))


def guard(db: Database, settings: Settings) -> int:
    """Take shares of aliases back from versions that do worse."""
    return model_guard.look_at_all(db)


def forget(db: Database, settings: CallSettings) -> int:
    """Delete the rows of processes that are long gone, of calls that may be asked again or that nobody waits for."""
    db.run(ingresses.forget_suspects, settings)
    db.run(dispatch.forget_turns)
    db.run(model_guard.forget)
    db.run(wants.forget)
    return db.run(work.forget)


def learn(db: Database, settings: Settings) -> int:
    """Measure what settled slices teach about their models' lines."""
    return db.run(measure.measure)


def budget(db: Database, settings: DispatchSettings) -> int:
    """Pause what spent budgets stop, and let go on what new ones allow."""
    return budgets.look_at_all(db, settings)


def pass_over(db: Database, settings: Settings) -> int:
    """Go on without members of ensembles that nobody serves."""
    return sum(db.run(folds.pass_over, one) for one in db.run(folds.absent, settings))


def sample(db: Database, settings: DispatchSettings) -> int:
    """Write the samples of this tick, of ten seconds, unless another keeper has."""
    return db.run(samples.take, settings)


def count_ends(db: Database, settings: Settings) -> int:
    """Add what ended to the counts."""
    return sum(iter(partial(db.run, tally.ended), 0))


def expect(db: Database, settings: Settings) -> int:
    """Keep what is expected of batches that have just begun."""
    return db.run(first_expectations.say, settings)


DUTIES = (
    *(reap, expire, move_on, pass_over, promote, feed, hint_again, evaluate, learn, budget, guard, forget, sample),
    *(count_ends, expect),
)
_SELDOM: Final = {promote: 5, pass_over: 5, budget: 5, guard: 5, forget: 60, sample: 3, count_ends: 5, expect: 5}
"""Duties that are done at every so many ticks. To know a batch's slack is to add up its open slices: with 100,000 of
them some 0.2 s, and nothing of it depends on a second."""


class View:
    """Whether this keeper saw the database all the time lately.

    Workers that could not beat because the database was away are not silent: after an outage they get two beats' time
    before anybody is reaped, else one outage longer than a lease would throw away everything that is in flight.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lost_at: float | None = None
        self._told_at = float("-inf")
        self.failed = 0
        """Duties that met a bug of ours, until somebody counts them."""

    def lose(self) -> bool:
        """The database did not answer just now; whether that is worth a line in the log, for the first time in a while.

        While it is away every duty of every tick fails.
        """
        self._lost_at = self._clock()
        if self._lost_at - self._told_at < _NEWS_SECONDS:
            return False
        self._told_at = self._lost_at
        return True

    def is_clear(self, settings: LeaseSettings) -> bool:
        """Say whether silence means something again."""
        if self._lost_at is not None and self._clock() - self._lost_at > 2 * settings.beat_seconds:
            self._lost_at = None
        return self._lost_at is None


def tick(db: Database, settings: Settings, view: View | None = None, number: int = 0) -> dict[str, int]:
    """Do each duty once that is due at this tick; one that fails does not keep the others from their turn."""
    done, view = {}, view or View()
    for duty in DUTIES:
        if number % _SELDOM.get(duty, 1) or (duty is reap and not view.is_clear(settings)):
            continue
        try:
            done[duty.__name__] = duty(db, settings)
        except Unavailable as error:
            if view.lose():
                log.warning("duty_waits", duty=duty.__name__, error=error.message)
        except Exception:
            log.exception("duty_failed", duty=duty.__name__)
            view.failed += 1
    return {name: count for name, count in done.items() if count}


def run(db: Database, settings: Settings, stop: threading.Event) -> None:
    """Tick until told to stop."""
    holder = Holder(uuid.uuid4(), "keeper", None, socket.gethostname(), os.getpid())
    registered, view, busy_seconds, counted = False, View(), 0.0, 0
    for number in itertools.count():
        if stop.is_set():
            break
        try:
            if not registered:
                db.run(work.register, holder, "ready", 0)
                registered = True
            db.run(work.seen, holder)
        except Unavailable as error:
            if view.lose():
                log.warning("keeper_waits", error=error.message)
        began = time.monotonic()
        done = tick(db, settings, view, number)
        busy_seconds += time.monotonic() - began
        if number - counted >= _COUNTED_TICKS:
            tally.write_blob_errors(db)
            with contextlib.suppress(Unavailable):  # then they are told with the next ones
                db.run(tally.ticks, number - counted, round(1000 * busy_seconds), view.failed)
                busy_seconds, counted, view.failed = 0.0, number, 0
        if set(done) - {"hint_again", "feed", "learn", "sample", "count_ends", "expect"}:
            log.info("tick", **done)
        stop.wait(settings.tick_seconds)
    if registered:
        with contextlib.suppress(Unavailable):  # it will be seen as gone by its silence
            db.run(work.mark, holder, "gone", settings)


def _stop_on_signal(stop: threading.Event, db: Database) -> None:
    signal.sigwait(_ENDS)
    db.hurry()  # else each duty of the tick would wait for a database that does not answer
    stop.set()


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = load()
    revision.require(settings.database_url)
    arm(settings.failpoints)
    stop = threading.Event()
    # Waited for by a thread: a handler would set `stop` in the middle of a wait for it, which holds its lock.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    hinter = Hinter(settings.redis_url, settings.hint_timeout_seconds)
    db = Database(sync_engine(settings.database_url, connections.KEEPER), hinter.say)
    threading.Thread(target=_stop_on_signal, args=(stop, db), name="ending", daemon=True).start()
    log.info("keeper_started")
    # Threads of their own: a blob store that hangs must not keep silent holders from being reaped.
    sweeping = threading.Thread(target=sweep.run, args=(db, Blobs(settings.blob_url), settings, stop), daemon=True)
    sweeping.start()
    threading.Thread(target=erasure.run, args=(db, Blobs(settings.blob_url), settings, stop), daemon=True).start()
    run(db, settings, stop)
    hinter.close()
    db.close()


if __name__ == "__main__":
    main()
