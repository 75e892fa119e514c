"""The periodic writer: what a process counts in memory, written to the database every few seconds and at the end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Final, Self

import structlog

log = structlog.get_logger()

WRITE_SECONDS: Final = 5.0


class PeriodicWriter(ABC):
    """One process's, on one event loop; used with `async with`, whose end writes the last."""

    def __init__(self, write_seconds: float) -> None:
        self._write_seconds = write_seconds
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write_on())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writing:
            self._writing.cancel()
            await asyncio.wait([self._writing])
        await self.write()

    @abstractmethod
    async def write(self) -> None:
        """Write what was counted since the last time."""

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(self._write_seconds)
            try:
                await self.write()
            except Exception as error:  # a bug of ours must not stop the counting for ever
                log.error("not_written", writer=type(self).__name__, exc_info=error)
