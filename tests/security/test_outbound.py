"""Nothing goes out to where it may not, and no receiver costs more than its share."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from security.receivers import OK, certificate, receiving, says

from penstock.domain.api_errors import OutboundFailed, OutboundRefused
from penstock.wire.outbound import Outbound, Reply, Resolve

LOOPBACK = ip_network("127.0.0.0/8")


def answers(*turns: Sequence[str]) -> Resolve:
    """A name server that says something else each time, and its last word for ever."""
    left = list(turns)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


async def post(out: Outbound, url: str, *, seconds: float = 5.0, most: int = 1_000) -> Reply:
    return await out.post(url, headers={"x-mine": "1"}, body=b"{}", timeout_seconds=seconds, most_bytes=most)


def test_an_allowed_receiver_gets_it_once_under_its_name_and_answers() -> None:
    async def main() -> None:
        async with receiving(OK) as receiver, Outbound([LOOPBACK], resolve=answers(["127.0.0.1"])) as out:
            reply = await post(out, f"http://hooks.example.com:{receiver.port}/a%2Fb?c=d")
            assert (reply.status, reply.start, reply.headers["content-length"]) == (200, b"ok", "2")
            head = receiver.heads[0]
            assert head.startswith(b"POST /a%2Fb?c=d HTTP/1.1\r\n")
            assert f"\r\nHost: hooks.example.com:{receiver.port}\r\n".encode() in head
            assert (receiver.bodies, len(receiver.heads)) == ([b"{}"], 1)

    asyncio.run(main())


def test_a_name_that_changes_its_answer_after_the_check_is_refused_at_the_send() -> None:
    async def main() -> None:
        async with receiving(OK) as receiver, Outbound(resolve=answers(["93.184.215.14"], ["127.0.0.1"])) as out:
            url = "https://rebind.example.com/"
            await out.vet(url)
            with pytest.raises(OutboundRefused, check=lambda error: "not a public address" in error.reason):
                await post(out, url)
            assert receiver.heads == []

    asyncio.run(main())


def test_a_name_is_resolved_once_a_send_and_the_connection_goes_to_that_answer() -> None:
    async def main() -> None:
        asked = 0

        async def resolve(host: str, port: int) -> Sequence[str]:
            nonlocal asked
            asked += 1
            return ["127.0.0.1"] if asked == 1 else ["10.0.0.1"]

        async with receiving(OK) as receiver, Outbound([LOOPBACK], resolve=resolve) as out:
            assert (await post(out, f"http://rebind.example.com:{receiver.port}/")).status == 200
            assert asked == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "addresses",
    [
        ["93.184.215.14", "10.0.0.1"],
        ["169.254.169.254"],
        ["::ffff:169.254.169.254"],
        ["2606:4700::1", "fd00:ec2::254"],
        ["64:ff9b::7f00:1"],
        ["fe80::1%eth0"],
        ["::1"],
    ],
)
def test_one_address_that_is_not_public_spoils_the_whole_answer(addresses: list[str]) -> None:
    async def main() -> None:
        async with Outbound([ip_network("10.1.0.0/16")], resolve=answers(addresses)) as out:
            for going in (out.vet("https://a.example.com/"), post(out, "https://a.example.com/")):
                with pytest.raises(OutboundRefused):
                    await going

    asyncio.run(main())


def test_a_name_without_an_address_is_refused_at_create_and_fails_at_the_send() -> None:
    async def main() -> None:
        async with Outbound(resolve=answers([])) as out:
            with pytest.raises(OutboundRefused):
                await out.vet("https://nowhere.example.com/")
            with pytest.raises(OutboundFailed):
                await post(out, "https://nowhere.example.com/")

    asyncio.run(main())


def test_the_systems_own_resolver_is_held_to_the_same_rules() -> None:
    async def main() -> None:
        async with Outbound() as out:
            with pytest.raises(OutboundRefused, check=lambda error: "not a public address" in error.reason):
                await out.vet("https://localhost/")

    asyncio.run(main())


def test_a_name_server_that_says_nothing_costs_one_lookup_and_the_timeout() -> None:
    async def main() -> None:
        asked = 0

        async def resolve(host: str, port: int) -> Sequence[str]:
            nonlocal asked
            asked += 1
            await asyncio.Event().wait()
            return []

        async with Outbound(resolve=resolve) as out:
            going = [post(out, "https://slow.example.com/", seconds=0.3) for _ in range(20)]
            ended = await asyncio.gather(*going, return_exceptions=True)
            assert {type(one) for one in ended} == {OutboundFailed}
            assert asked == 1

    asyncio.run(main())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_not_followed(status: int) -> None:
    async def main() -> None:
        async with receiving(OK) as inner:
            there = f"http://127.0.0.1:{inner.port}/"
            moved = f"HTTP/1.1 {status} Moved\r\nlocation: {there}\r\ncontent-length: 0\r\n\r\n"
            async with receiving(says(moved.encode())) as receiver, Outbound([LOOPBACK]) as out:
                reply = await post(out, f"http://127.0.0.1:{receiver.port}/")
                assert (reply.status, reply.headers["location"]) == (status, there)
                assert inner.heads == []

    asyncio.run(main())


def test_a_gigabyte_of_answer_is_cut_at_the_limit() -> None:
    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")
        for _ in range(1_024):
            writer.write(bytes(1_048_576))
            await writer.drain()

    async def main() -> None:
        async with receiving(flood) as receiver, Outbound([LOOPBACK]) as out:
            reply = await post(out, f"http://127.0.0.1:{receiver.port}/", most=4_096)
            assert (reply.status, len(reply.start)) == (200, 4_096)
            await asyncio.wait_for(receiver.ended.wait(), 10)
            assert receiver.sent < 64 * 1_048_576  # what kernels buffer, no more

    asyncio.run(main())


def test_a_compressed_answer_stays_compressed() -> None:
    bomb = gzip.compress(bytes(50_000_000))

    async def main() -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n".encode()
        async with receiving(says(head + bomb)) as receiver, Outbound([LOOPBACK]) as out:
            reply = await post(out, f"http://127.0.0.1:{receiver.port}/", most=1_000)
            assert reply.start == bomb[:1_000]
            assert b"accept-encoding: identity" in receiver.heads[0].lower()

    asyncio.run(main())


def test_an_answer_that_drips_ends_with_the_timeout_and_its_status_counts() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def main() -> None:
        async with receiving(drip) as receiver, Outbound([LOOPBACK]) as out:
            began = time.monotonic()
            reply = await post(out, f"http://127.0.0.1:{receiver.port}/", seconds=0.5)
            assert reply.status == 200
            assert reply.start.strip(b".") == b""
            assert 0.4 < time.monotonic() - began < 5
            await asyncio.wait_for(receiver.ended.wait(), 10)

    asyncio.run(main())


@pytest.mark.parametrize("early", [b"", b"HTTP/1.1 200 OK\r\nx-slow: "])
def test_a_head_that_never_ends_fails_with_the_timeout(early: bytes) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(early)
        while True:
            writer.write(b"." if early else b"")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def main() -> None:
        async with receiving(drip) as receiver, Outbound([LOOPBACK]) as out:
            with pytest.raises(OutboundFailed, match="timeout"):
                await post(out, f"http://127.0.0.1:{receiver.port}/", seconds=0.5)

    asyncio.run(main())


@pytest.mark.parametrize(
    "bomb", [b"x-long: " + b"a" * 1_000_000, b"\r\n".join(b"x-%d: a" % n for n in range(100_000))], ids=["long", "many"]
)
def test_a_bomb_of_headers_is_not_read_to_its_end(bomb: bytes) -> None:
    async def main() -> None:
        answer = says(b"HTTP/1.1 200 OK\r\n" + bomb + b"\r\ncontent-length: 0\r\n\r\n")
        async with receiving(answer) as receiver, Outbound([LOOPBACK]) as out:
            with pytest.raises(OutboundFailed, match="no HTTP"):
                await post(out, f"http://127.0.0.1:{receiver.port}/")

    asyncio.run(main())


def test_a_receiver_that_is_down_or_speaks_no_http_is_a_failure_with_a_reason() -> None:
    async def main() -> None:
        async with receiving(says(b"SSH-2.0-OpenSSH\r\n\r\n")) as receiver, Outbound([LOOPBACK]) as out:
            with pytest.raises(OutboundFailed, match="no HTTP"):
                await post(out, f"http://127.0.0.1:{receiver.port}/")
        async with Outbound([LOOPBACK]) as out:
            with pytest.raises(OutboundFailed, match="connection"):
                await post(out, f"http://127.0.0.1:{receiver.port}/")

    asyncio.run(main())


def test_no_proxy_of_the_environment_and_no_netrc_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        async with receiving(OK) as proxy, receiving(OK) as receiver, Outbound([LOOPBACK]) as out:
            for name in ("http_proxy", "https_proxy", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
                monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{proxy.port}")
            (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
            monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
            await post(out, f"http://127.0.0.1:{receiver.port}/")
            assert (len(receiver.heads), proxy.heads) == (1, [])
            assert b"authorization" not in receiver.heads[0].lower()

    asyncio.run(main())


def test_the_certificate_is_checked_against_the_name_in_the_url_not_the_address(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "hooks.example.com")

    async def main() -> None:
        resolve = answers(["127.0.0.1"])
        async with receiving(OK, server) as receiver, Outbound([LOOPBACK], resolve=resolve, tls=client) as out:
            assert (await post(out, f"https://hooks.example.com:{receiver.port}/")).status == 200
            with pytest.raises(OutboundFailed, match="certificate"):
                await post(out, f"https://other.example.com:{receiver.port}/")
            with pytest.raises(OutboundFailed, match="certificate"):
                await post(out, f"https://127.0.0.1:{receiver.port}/")
        async with receiving(OK, server) as receiver, Outbound([LOOPBACK], resolve=resolve) as out:
            with pytest.raises(OutboundFailed, match="certificate"):
                await post(out, f"https://hooks.example.com:{receiver.port}/")

    asyncio.run(main())
