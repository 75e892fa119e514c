"""An engine process: one start of an engine under its guard, and the socket that it listens on."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_worker.engine.launch_spec import Launch
from penstock_worker.engine.process.guarded_process import GuardedProcess


class EngineProcess(GuardedProcess):
    """An engine's processes from `with` to its end; afterwards none of them is left, nor its socket."""

    def __init__(self, launch: Launch, generation: int, *, record_path: Path, log_path: Path) -> None:
        super().__init__(launch.command, launch.environment, generation, record_path=record_path, log_path=log_path)
        self._socket = launch.socket

    def __enter__(self) -> Self:
        self._socket.unlink(missing_ok=True)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            self._socket.unlink(missing_ok=True)
