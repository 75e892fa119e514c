"""Poison calls: a body that was in flight at two engine deaths is refused: it must not walk through the fleet.

A body is known by a hash of tenant, endpoint and bytes. What this process does for the promise:

- A death is noted in Postgres before the client hears of it or the call is offered again, so that all API processes
  refuse a body with two deaths; while Postgres is away this process counts alone.
- Until a body was answered, equal calls join the engine that has it already (while it has a free slot, or the body has
  met a death), so that many copies of one meet one engine. If that dies, it is one death.
- Before a call is offered again it waits a moment, so that equal calls of other processes have noted their deaths too.
- After the second death, the client waits for one more load report: by then every process has read the table, so the
  next process that it asks refuses too.

So one call, however often it is sent again and to whichever API, meets two engines at most, and so do copies that come
to one process at once. Copies that come to several processes at once can meet one engine for each process and one more:
what is in flight elsewhere is not known here.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog

from penstock.domain.api_errors import EngineCrash, Unavailable
from penstock.service.calls import ingresses
from penstock.service.calls.call_metrics import POISON
from penstock.service.calls.ingresses import DEATHS_TO_REFUSE
from penstock.service.calls.worker_directory import WorkerDirectory
from penstock.service.core.transaction import AsyncDatabase
from penstock.settings.calls import CallSettings

log = structlog.get_logger()

_MOST_REMEMBERED: Final = 10_000
_NOTE_SECONDS: Final = 5.0
_MEETING_SECONDS: Final = 0.25
"""Equal calls of other processes that die at the same moment have noted it after so long."""


@dataclass(slots=True, eq=False)
class Flight:
    """Equal calls in one engine: they live or die together."""

    worker: UUID
    calls: int = 0
    noting: asyncio.Task[None] | None = None
    """Its engine died, and that is being noted, or has been."""


@dataclass(slots=True)
class _Body:
    """What is known of one body here."""

    flights: list[Flight] = field(default_factory=list)
    deaths: int = 0
    died_at: float = 0.0
    answered: bool = False
    """An engine answered it to its end, and none died of it since."""


def fingerprint(tenant: str, endpoint: str, body: bytes) -> bytes:
    """What is remembered of a call: 32 bytes that tell nobody what it asks."""
    hashed = hashlib.sha256(f"{tenant}\0{endpoint}\0".encode())
    hashed.update(body)
    return hashed.digest()


class Poison:
    """One process's memory of bodies and the engines that they are in, on one event loop."""

    def __init__(
        self,
        db: AsyncDatabase,
        directory: WorkerDirectory,
        settings: CallSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._bodies: OrderedDict[bytes, _Body] = OrderedDict()

    def check(self, print: bytes) -> None:
        """Raise EngineCrash if this body is refused."""
        body = self._body(print)
        if self._directory.refuses(print) or (body is not None and body.deaths >= DEATHS_TO_REFUSE):
            POISON.inc()
            raise EngineCrash

    def only(self, print: bytes, unlucky: Collection[UUID] = ()) -> set[UUID] | None:
        """The workers that a body may go to while it is in engines and was not answered yet; None: to any.

        `unlucky`: those that this call could not reach. Equal calls may be on their way to one that is gone.
        """
        body = self._body(print)
        if body is None or body.answered or not body.flights:
            return None
        workers = {flight.worker for flight in body.flights}
        if not body.deaths and not self._directory.has_room(workers.difference(unlucky)):
            return None  # so many copies, and none took its engine down yet: they need not wait for each other
        return workers

    def depart(self, print: bytes, worker: UUID) -> Flight:
        """A call goes to a worker; `arrive` must follow."""
        body = self._bodies.setdefault(print, _Body())
        flight = next((flight for flight in body.flights if flight.worker == worker), None)
        if flight is None:
            flight = Flight(worker)
            body.flights.append(flight)
        flight.calls += 1
        self._bodies.move_to_end(print)
        self._forget_some()
        return flight

    def arrive(self, print: bytes, flight: Flight, *, answered: bool = False) -> None:
        """The call has left its worker, with a whole answer or without."""
        flight.calls -= 1
        body = self._bodies.get(print)
        if body is None:
            return
        if answered and body.deaths < DEATHS_TO_REFUSE:
            body.answered, body.deaths = True, 0
        if not flight.calls and flight in body.flights:
            body.flights.remove(flight)
        if not body.flights and not body.deaths and not body.answered:
            del self._bodies[print]

    async def died(self, print: bytes, flight: Flight) -> None:
        """The flight's engine died. Returns once that is noted, and nobody can be asked this body who does not know.

        Raises EngineCrash if it was the second death: the body is refused from now on.
        """
        if flight.noting is None:
            flight.noting = asyncio.create_task(self._count(print, flight))
        # Shielded: a client that leaves now does not keep the death from being noted.
        await asyncio.shield(flight.noting)
        body = self._body(print)
        if body is None or body.deaths < DEATHS_TO_REFUSE:
            await asyncio.sleep(_MEETING_SECONDS)
            await self._directory.refresh()
        else:
            await asyncio.sleep(1.5 * self._settings.load_report_seconds)
        self.check(print)

    async def _count(self, print: bytes, flight: Flight) -> None:
        body = self._bodies.setdefault(print, _Body())
        if flight in body.flights:
            body.flights.remove(flight)
        body.answered = False
        body.deaths = (body.deaths if self._is_recent(body) else 0) + 1
        body.died_at = self._clock()
        body.deaths = max(body.deaths, await self._note(print))

    async def _note(self, print: bytes) -> int:
        try:
            async with asyncio.timeout(_NOTE_SECONDS):
                deaths = await self._db.run(ingresses.note_death, print, self._settings)
        except (Unavailable, TimeoutError):
            log.warning("engine_death_counted_here_only", call=print.hex()[:12])
            return 0
        log.warning("engine_died_with_a_call", call=print.hex()[:12], deaths=deaths)
        return deaths

    def _body(self, print: bytes) -> _Body | None:
        body = self._bodies.get(print)
        if body is not None and body.deaths and not self._is_recent(body):
            body.deaths = 0
        return body

    def _is_recent(self, body: _Body) -> bool:
        return self._clock() - body.died_at < self._settings.poison_call_seconds

    def _forget_some(self) -> None:
        """Forget what is longest unused and in no engine: those that are in one are as many as calls are."""
        for print in [print for print, _ in zip(self._bodies, range(8), strict=False)]:
            if len(self._bodies) <= _MOST_REMEMBERED:
                return
            if self._bodies[print].flights:
                self._bodies.move_to_end(print)
            else:
                del self._bodies[print]
