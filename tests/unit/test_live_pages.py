"""Live pages: one look serves all who watch the same, each has the latest, and nobody looks for nobody."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from penstock.console.api_client import ApiProblem
from penstock.console.live.live_pages import END, LivePages, event


def test_one_look_serves_all_who_watch_the_same() -> None:
    async def story() -> None:
        pages, looks = LivePages(), 0

        async def look() -> str:
            nonlocal looks
            looks += 1
            return "<p>now</p>\n<p>then</p>"

        async with AsyncExitStack() as stack:
            viewers = [await stack.enter_async_context(pages.watch("workers", look)) for _ in range(200)]
            seen = [await viewer.next(5) for viewer in viewers]
            late = await stack.enter_async_context(pages.watch("workers", look))
            assert await late.next(5) == seen[0]
        assert looks == 1
        assert {id(one) for one in seen} == {id(seen[0])}, "the same bytes, made once"
        assert seen[0] == b"data: <p>now</p>\ndata: <p>then</p>\n\n" == event("<p>now</p>\n<p>then</p>")
        assert not pages._pages, "nobody is left, so nobody looks"

    asyncio.run(story())


def test_what_is_gone_ends_for_all_and_may_come_back() -> None:
    async def story() -> None:
        pages, there = LivePages(), False

        async def look() -> str:
            if not there:
                raise ApiProblem(404, {"message": "No such worker."}, {})
            return "here"

        async with pages.watch("worker", look) as one:
            assert (await one.next(5), one.ended) == (END, True)
            there = True
            async with pages.watch("worker", look) as other:
                assert (await other.next(5), other.ended) == (event("here"), False)

    asyncio.run(story())
