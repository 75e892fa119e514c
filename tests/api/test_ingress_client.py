"""The client of ingresses: certificates are checked, nothing is followed, and what breaks is told apart."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from aiohttp import web

from penstock.wire.ingress_client import IngressClient, IngressLost, IngressUnreachable

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls, shutdown_timeout=0.01)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def hello(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text=request.headers["authorization"])


def test_a_door_with_tls_is_trusted_by_its_ca_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    certificate, key = tmp_path / "ingress.pem", tmp_path / "ingress.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=ingress", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)

    async def main() -> None:
        async with served(hello, tls) as url:
            async with IngressClient("secret", certificate) as client:
                reply = await client.offer(url, "/v1/completions", b"{}", {})
                assert await reply.piece() == b"Bearer secret"
                assert await reply.piece() == b""
                reply.close()
            async with IngressClient("secret") as client:
                with pytest.raises(IngressUnreachable):
                    await client.offer(url, "/v1/completions", b"{}", {})

    asyncio.run(main())


def test_a_redirect_is_not_followed_and_a_head_without_an_end_is_not_read_on() -> None:
    async def odd(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/elsewhere":
            return web.Response(status=307, headers={"location": "http://127.0.0.1:1/"})
        return web.Response(headers={"x-long": "x" * 60_000})

    async def main() -> None:
        async with served(odd) as url, IngressClient("secret") as client:
            reply = await client.offer(url, "/elsewhere", b"{}", {})
            assert reply.status == 307
            reply.close()
            with pytest.raises(IngressLost):
                await client.offer(url, "/long", b"{}", {})

    asyncio.run(main())


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_ingress_may_be_behind_a_path_and_its_connections_are_kept_and_watched(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    peers: set[object] = set()

    async def where(request: web.BaseRequest) -> web.StreamResponse:
        peers.add(request.transport and request.transport.get_extra_info("peername"))
        return web.Response(text=f"{request.path} {request.headers['host']}")

    async def main() -> None:
        async with served(where) as url, IngressClient("secret") as client:
            for _ in range(3):
                reply = await client.offer(f"{url}/gpu-1/", "/v1/completions", b"{}", {})
                assert await reply.piece() == f"/gpu-1/v1/completions {url.removeprefix('http://')}".encode()
                assert await reply.piece() == b""
                connected = reply._exchange._connection._transport.get_extra_info("socket")  # type: ignore[union-attr]
                assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                reply.close()
            assert len(peers) == 1

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.mark.parametrize(
    "url",
    ["", "ftp://x", "http://", "http://host:port", "http://127.0.0.1:1", "http://[::1", "http://h:99999", "http://a..b",
     f"http://{'x' * 70}", "http://a b", "http://h\udcff"],
)  # fmt: skip
def test_what_is_no_address_or_answers_nobody_is_unreachable(url: str) -> None:
    async def main() -> None:
        async with IngressClient("secret") as client:
            for _ in range(2):
                with pytest.raises(IngressUnreachable):
                    await client.offer(url, "/v1/completions", b"{}", {})

    asyncio.run(main())


def test_a_fate_that_is_not_understood_is_no_fate() -> None:
    async def odd(request: web.BaseRequest) -> web.StreamResponse:
        return {
            "/calls/a": web.Response(text="oh"),
            "/calls/b": web.Response(text='{"outcome": "sunk", "suspects": false}'),
            "/calls/c": web.Response(text='{"outcome": "left", "suspects": true}'),
        }.get(request.path, web.Response(status=404))

    async def main() -> None:
        async with served(odd) as url, IngressClient("secret") as client:
            for call in ("a", "b"):
                with pytest.raises(IngressLost):
                    await client.outcome(url, call)
            told = await client.outcome(url, "c")
            assert (told.outcome, told.suspects) == ("left", True)
            assert (await client.outcome(url, "d")).outcome == "unknown"
        async with IngressClient("secret") as client:
            with pytest.raises(IngressUnreachable):
                await client.outcome(url, "a")

    asyncio.run(main())
