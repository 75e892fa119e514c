"""Download news: while an engine fetches its model, the worker's log says how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from penstock.model_source.download import Download

log = structlog.get_logger()

NEWS_SECONDS: Final = 15.0


@contextmanager
def telling(
    download: Download | None, is_starting: Callable[[], bool], every_seconds: float = NEWS_SECONDS
) -> Iterator[None]:
    """Log the download's progress now and then for the length of a `with`, until the engine has started."""
    over = threading.Event()

    def tell() -> None:
        while download and is_starting() and not over.wait(every_seconds):
            if words := download.words():
                log.info("model_download", progress=words)

    thread = threading.Thread(target=tell, name="download-news", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
