"""A proxy: everything between two processes passes here, and may be cut, held, dropped, delayed or lost on its way.

It listens on a TCP port of loopback and connects to a TCP address or a unix socket:

    with Proxy(Path(folder) / ".s.PGSQL.5432") as network:
        url = f"postgresql://postgres@127.0.0.1:{network.port}/postgres"
        network.cut()
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from penstock.stack.ports import free_port

R = TypeVar("R")
Target = Path | tuple[str, int]

_PIECE_BYTES: Final = 256 * 1024
_RESET: Final = struct.pack("ii", 1, 0)
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
# Classic BPF, `ret #0`: the kernel drops every packet that comes for this socket, answering nothing (socket(7)).
_DROP_ALL: Final = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))


@dataclass(eq=False)
class _Pair:
    """One connection: the client's socket and the server's."""

    client: socket.socket
    server: socket.socket | None = None
    due: bool = False
    losing: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def reset(self) -> None:
        """Both peers see `connection reset`."""
        for task in self.tasks:
            task.cancel()
        for one in (self.client, self.server):
            if one is not None and one.fileno() >= 0:
                _drop_packets(one, False)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.close()


class Proxy:
    """A network that a test can break. It runs in a thread of its own, from `with` to its end."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._refusing = self._vanished = False
        self._delay_seconds = 0.0
        self._lose: bytes | None = None
        self._after = b""
        self._losses_left, self._lose_every, self._losable = 0, 1, 0
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self.port = free_port()  # it is left and opened again, and nobody else may get it meanwhile
        self.lost = 0
        """Answers that were lost so far."""

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._do(self._listen)
        self.heal()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        asyncio.run_coroutine_threadsafe(self._ended(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._pairs)

    # What may go wrong. Each call replaces what was wrong before, and is done when it returns.

    def heal(self) -> None:
        """Everything passes; what was held comes now."""
        self._do(self._change)

    def cut(self) -> None:
        """Connections are reset, new ones refused."""

        def change() -> None:
            self._change(refusing=True)
            for pair in list(self._pairs):
                pair.reset()
            self._pairs.clear()

        self._do(change)

    def hang(self) -> None:
        """Half-open: connections stay and new ones are accepted, bytes are taken and go nowhere."""
        self._do(lambda: self._change(flowing=False))

    def vanish(self) -> None:
        """The peer is gone without a word: no packet is answered, not even by the kernel; connecting hangs."""
        self._do(lambda: self._change(flowing=False, vanished=True))

    def lose_answers(self, to: bytes = b"", times: int = 1_000_000, every: int = 1, after: bytes = b"") -> None:
        """What a client sends arrives; the answer to (each nth) that holds `to` is lost, and its connection reset.

        With `after`, only where the client sent that before, and not yet another `to`.
        """
        self._do(lambda: self._change(lose=to, times=times, every=every, after=after))

    def delay(self, seconds: float) -> None:
        """Every piece takes so long, each way."""
        self._do(lambda: self._change(delay_seconds=seconds))

    # On the loop's thread.

    def _do(self, change: Callable[[], R]) -> R:
        async def call() -> R:
            return change()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def _change(
        self,
        flowing: bool = True,
        refusing: bool = False,
        vanished: bool = False,
        delay_seconds: float = 0.0,
        lose: bytes | None = None,
        times: int = 0,
        every: int = 1,
        after: bytes = b"",
    ) -> None:
        self._after = after
        self._delay_seconds, self._lose, self._losses_left, self._lose_every = delay_seconds, lose, times, every
        if flowing:
            self._flowing.set()
        else:
            self._flowing.clear()
        if refusing is not self._refusing:
            self._refusing = refusing
            if refusing:
                self._shut()
            else:
                self._listen()
        if self._listener is not None:
            _drop_packets(self._listener, vanished)
        for pair in self._pairs:
            _drop_packets(pair.client, vanished)

    def _listen(self) -> None:
        self._listener = listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(512)
        listener.setblocking(False)
        self._accepting = self._spawn(self._accept(listener))

    def _shut(self) -> None:
        if self._listener is not None and self._accepting is not None:
            self._accepting.cancel()
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _ended(self) -> None:
        while tasks := self._tasks - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, coroutine: object) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)  # type: ignore[arg-type,var-annotated]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(client)
            self._pairs.add(pair)
            pair.tasks.append(self._spawn(self._connect(pair)))

    async def _connect(self, pair: _Pair) -> None:
        await self._flowing.wait()
        unix = isinstance(self._target, Path)
        pair.server = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        pair.server.setblocking(False)
        try:
            await self._loop.sock_connect(pair.server, str(self._target) if unix else self._target)
        except OSError:
            self._end(pair)
            return
        pair.tasks += [
            self._spawn(self._pump(pair, pair.client, pair.server)),
            self._spawn(self._pump(pair, pair.server, pair.client)),
        ]

    async def _pump(self, pair: _Pair, source: socket.socket, sink: socket.socket) -> None:
        """Pass on one direction of a connection until either end closes it."""
        asked = source is pair.client
        with suppress(OSError):
            while data := await self._loop.sock_recv(source, _PIECE_BYTES):
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                await self._flowing.wait()
                if asked:
                    self._look(pair, data)
                elif pair.losing:
                    pair.losing = False
                    if self._losses_left:
                        self._losses_left -= 1
                        self.lost += 1
                        break
                await self._loop.sock_sendall(sink, data)
        await self._flowing.wait()  # an end, too, is not heard of while nothing passes
        self._end(pair)

    def _look(self, pair: _Pair, data: bytes) -> None:
        """Note whether the answer to this is one that shall be lost."""
        if self._lose is None:
            return
        pair.due = pair.due or self._after in data
        if pair.due and self._lose in data:
            pair.due = False
            self._losable += 1
            pair.losing = self._losable % self._lose_every == 0

    def _end(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        pair.tasks = [task for task in pair.tasks if task is not asyncio.current_task()]
        pair.reset()


def _drop_packets(one: socket.socket, drop: bool) -> None:
    if drop:
        program = struct.pack("HxxxxxxP", 1, ctypes.addressof(_DROP_ALL))
        one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    else:
        with suppress(OSError):  # none was attached
            one.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
