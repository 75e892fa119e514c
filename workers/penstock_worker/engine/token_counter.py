"""The token counter: how many tokens texts are to an engine, counted in this process.

A list of inputs has one usage: what each of them took is known only to whoever counts them, too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from penstock.model_source import hub

log = structlog.get_logger()

Count = Callable[[Sequence[str | tuple[str, ...]]], list[int]]
"""The tokens of each text; of a pair as one text that is made of both."""


class TokenCounter:
    """Counts as one engine does, as long as the engine agrees; may be asked by any thread."""

    def __init__(self, load: Callable[[], Count | None]) -> None:
        """`load` is called once, when the engine was ready; None: nobody here can count."""
        self._load = load
        self._lock = threading.Lock()
        self._count: Count | None = None
        self._loaded = False
        self.doubted = False
        """The engine has counted otherwise: nothing more is said for it."""

    def of(self, inputs: Sequence[tuple[str, ...]]) -> list[tuple[int, ...]] | None:
        """How many tokens each input may be to the engine; None if that can't be said here.

        An input is a text, or a pair: some models read one text that is made of both, some two, and some what stands
        there if the second is written behind the first (vLLM's entrypoints/pooling/scoring/io_processor.py).
        """
        with self._lock:
            if not self._loaded:
                self._count, self._loaded = self._load(), True
        if self._count is None or self.doubted:
            return None
        each = self._count([text for one in inputs for text in one])
        if len(each) == len(inputs):
            return [(count,) for count in each]
        nothing, made_of_nothing = self._count(["", ("", "")])
        made_of_both = made_of_nothing - 2 * nothing  # what stands around and between them is the same for each
        joined = self._count(["".join(one) for one in inputs])
        apart = map(sum, zip(each[::2], each[1::2], strict=True))
        return [(two + made_of_both, two, count) for two, count in zip(apart, joined, strict=True)]

    def doubt(self) -> None:
        """The engine has counted otherwise."""
        if not self.doubted:
            self.doubted = True
            log.warning("tokens_counted_otherwise", so="lines are not packed any more")


def of_model(source: str, revision: str | None, environ: Mapping[str, str], cache: str | None = None) -> Count | None:
    """As a model's own tokenizer.json says, of a folder or of an id whose files are in the cache; None without one."""
    folder = Path(source)
    if not folder.is_dir():
        repository = hub.hub(environ, cache).repository(source)
        try:
            commit = (repository / "refs" / (revision or "main")).read_text().strip()
        except OSError:
            commit = revision or ""
        folder = repository / "snapshots" / commit
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the engine needs the cores, and children are started
    try:
        from tokenizers import Tokenizer

        tokenizer: Any = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exceptions
        log.warning("no_tokenizer", error=type(error).__name__, so="lines are not packed")
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda inputs: [len(one.ids) for one in tokenizer.encode_batch_fast(list(inputs))]
