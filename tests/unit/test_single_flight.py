"""A single flight: one question at a time for each key, whose answer or error all hear who asked meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from penstock.domain.single_flight import SingleFlight


class Oracle:
    """Answers when it is told to, and knows how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.asked += 1
        await self.answer.wait()
        if self.error:
            raise self.error
        return self.asked


def test_who_asks_meanwhile_shares_the_answer_and_who_asks_later_asks_anew() -> None:
    async def main() -> None:
        oracle, flight = Oracle(), SingleFlight[str, int]()
        asking = [asyncio.create_task(flight.ask("a", oracle)) for _ in range(3)]
        other = asyncio.create_task(flight.ask("b", oracle))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert oracle.asked == 2, "one for each key"
        oracle.answer.set()
        assert len({*(await asyncio.gather(*asking)), await other}) == 1, "both were asked before the answer"
        assert await flight.ask("a", oracle) == 3

    asyncio.run(main())


def test_an_error_is_told_to_all_and_kept_for_nobody() -> None:
    async def main() -> None:
        oracle, flight = Oracle(), SingleFlight[str, int]()
        oracle.error = KeyError("x")
        asking = [asyncio.create_task(flight.ask("a", oracle)) for _ in range(2)]
        oracle.answer.set()
        assert [type(told) for told in await asyncio.gather(*asking, return_exceptions=True)] == [KeyError, KeyError]
        oracle.error = None
        assert await flight.ask("a", oracle) == 2

    asyncio.run(main())


def test_who_leaves_takes_the_answer_from_nobody() -> None:
    async def main() -> None:
        oracle, flight = Oracle(), SingleFlight[str, int]()
        first, second = (asyncio.create_task(flight.ask("a", oracle)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        oracle.answer.set()
        assert await second == 1

    asyncio.run(main())
