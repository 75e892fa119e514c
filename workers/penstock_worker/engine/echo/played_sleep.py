"""Sleep of the echo engine: it plays vLLM's, and its defects if it is told to.

aborts   it does not wait for what is in it (`mode=wait`), but ends it with what there is and `finish_reason: "abort"`
dies     it says that it sleeps, and is dead (vllm#45520)
hangs    once it slept it answers nothing any more (vllm#45268)
keeps    asleep it keeps nine tenths of its device memory

Asleep it answers no request until it wakes, and its health and metrics pages as ever, as vLLM does.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, Final

from aiohttp import web

from penstock.domain.engines.profile import EngineSleep
from penstock_worker.engine.echo import status_page
from penstock_worker.engine.echo.body import Body
from penstock_worker.engine.echo.counters import Counters

FAULTS: Final = ("aborts", "dies", "hangs", "keeps")
_LOOK_SECONDS: Final = 0.01
_AWAKE_BYTES: Final = 16 * 2**30
_ASLEEP_BYTES: Final = 2**30


class PlayedSleep:
    """Whether it sleeps. It can only where it was started with sleep's flag."""

    def __init__(self, sleep: EngineSleep | None, counters: Counters, fault: str | None) -> None:
        self._sleep = sleep
        self._counters = counters
        self._fault = fault
        self._awake = asyncio.Event()
        self._awake.set()
        self._cut = asyncio.Event()
        """Whatever is in it ends now."""
        counters.device_memory_bytes = _AWAKE_BYTES

    def takes(self, path: str) -> bool:
        """Whether this is where it is put to sleep, woken, or asked."""
        sleep = self._sleep
        return sleep is not None and path in (sleep.path.partition("?")[0], sleep.wake_path, sleep.asked_path)

    async def change(self, request: web.BaseRequest) -> web.Response:
        """Fall asleep, wake up, or say whether it sleeps."""
        assert self._sleep is not None, "it takes no such path"
        if request.path == self._sleep.asked_path:
            return status_page.reply({"is_sleeping": not self._awake.is_set()})
        if request.path == self._sleep.wake_path:
            self._counters.device_memory_bytes = _AWAKE_BYTES
            if self._fault != "hangs":
                self._awake.set()
            return status_page.reply({})
        return await self._fall_asleep(request.query.get("mode", "abort"))

    async def _fall_asleep(self, mode: str) -> web.Response:
        if mode == "abort" or self._fault == "aborts":
            self._cut.set()
        while self._counters.running:  # noqa: ASYNC110 # it is a count, which tells nobody
            await asyncio.sleep(_LOOK_SECONDS)
        self._awake.clear()
        self._cut.clear()
        self._counters.device_memory_bytes = _AWAKE_BYTES * 9 // 10 if self._fault == "keeps" else _ASLEEP_BYTES
        if self._fault == "dies":
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, os.kill, os.getpid(), signal.SIGKILL)
        return status_page.reply({})

    async def awake(self) -> None:
        """Return once it is awake; who waits is in no metric."""
        await self._awake.wait()

    async def through(self, work: Coroutine[Any, Any, None]) -> bool:
        """Let a request work; False if it was cut."""
        if self._sleep is None:
            await work
            return True
        doing, cutting = asyncio.ensure_future(work), asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait({doing, cutting}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
            return doing.done()
        finally:
            doing.cancel()
            cutting.cancel()


def cut_short(said: Body) -> None:
    """An answer of which half was written when the engine was put to sleep."""
    for choice in said.get("choices", ()):
        choice["finish_reason"] = "abort"
        if isinstance(message := choice.get("message"), dict):
            choice["message"] = message | {"content": message["content"][: len(message["content"]) // 2]}
