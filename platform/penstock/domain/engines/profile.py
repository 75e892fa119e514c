"""An engine profile: how one kind of engine is started, asked and watched, and what it can't do.

It is data. Whoever works with an engine asks its profile, and never for its name. What an engine lacks is published
with its worker, and the platform does without it, knowingly: `LACKS` says how (docs/engines.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final


class EngineSource(StrEnum):
    """What stands behind the `=` of `--model NAME=…`."""

    MODEL = "model"
    """A model folder or a Hugging Face id, which the engine loads."""
    GGUF = "gguf"
    """A GGUF file, or the Hugging Face id of a repository that has one."""
    ADDRESS = "address"
    """The http:// or https:// address of an engine that runs elsewhere."""
    NOTHING = "nothing"
    """It has no weights."""


class EnginePriority(StrEnum):
    """How it orders its requests by their `priority`."""

    LOW_FIRST = "low_first"
    HIGH_FIRST = "high_first"
    NONE = "none"
    """Not at all: it is sent none."""


class EngineAbort(StrEnum):
    """How it learns that nobody waits for an answer any more."""

    DISCONNECT = "disconnect"
    """Its client's connection closes."""
    REQUEST_ID = "request_id"
    """It is told the request's id at `abort_path`."""
    NONE = "none"
    """It does not: it goes on to the answer's end."""


class Knob(StrEnum):
    """What of an engine is worth tuning for a device."""

    SEQUENCES = "sequences"
    """How many it works on at once."""
    STEP_TOKENS = "step_tokens"
    """How many tokens a step of it may compute."""
    GPUS = "gpus"
    """Over how many GPUs one copy of the model is spread."""
    GPU_MEMORY = "gpu_memory"
    """The part of a GPU's memory that it takes."""


class ErrorShape(StrEnum):
    """What its errors look like; formats/answers/engine_error.py reads them all."""

    OPENAI = "openai"
    """`{"error": {"message", "type", "param", "code"}}`"""
    FLAT = "flat"
    """`{"object": "error", "message", "type", "param", "code"}`"""
    TEXT = "text"
    """`{"error": "…"}`, perhaps with an `error_type` beside it"""
    DETAIL = "detail"
    """`{"detail": "…"}`, or a list of what is wrong with which field"""


class EngineLack(StrEnum):
    """What an engine may be without."""

    PRIORITY = "priority"
    ABORT = "abort"
    METRICS = "metrics"
    TOKENIZER = "tokenizer"
    REQUEST_IDS = "request_ids"
    CACHE_SALT = "cache_salt"
    LISTS = "lists"


LACKS: Final[Mapping[EngineLack, str]] = {
    EngineLack.PRIORITY: "its queue is first come, first served: lanes and tiers are kept by the slots that the gate"
    " keeps free alone",
    EngineLack.ABORT: "a request that nobody waits for runs on: it keeps its slot until the engine is done with it, and"
    " its answer is dropped",
    EngineLack.METRICS: "its load is not seen: the budget follows its refusals and its latency, and silence is no sign"
    " that it hangs",
    EngineLack.TOKENIZER: "nobody counts a prompt's tokens before it is answered: estimates go by bytes",
    EngineLack.REQUEST_IDS: "it does not take our ids over: a line's `request_id` is the one that the engine gave it",
    EngineLack.CACHE_SALT: "its prefix cache, if it has one, is not parted by tenant",
    EngineLack.LISTS: "each line of embeddings or scores is a request of its own: it takes no lists, or nobody here"
    " counts their tokens",
}
"""What the platform does without each."""


def read_lacks(text: str) -> tuple[EngineLack, ...]:
    """Names of lacks, by comma. Raises ValueError."""
    return tuple(EngineLack(name) for name in text.split(",") if name)


@dataclass(frozen=True)
class LoadMetrics:
    """Where an engine's Prometheus page says how loaded it is: names of metrics, as the page writes them."""

    running: str
    """Requests that it works on."""
    steps: tuple[str, ...]
    """Counters of which each step of the engine moves one: who has requests and moves none is hung."""
    path: str = "/metrics"
    waiting: str | None = None
    kv_usage: str | None = None
    """Part of its KV cache that is in use, 0 to 1."""
    kv_config: str | None = None
    """Whose labels `num_gpu_blocks` and `block_size` say how many tokens its KV cache holds."""
    preemptions: str | None = None
    tokens: tuple[str, ...] = ()
    """Counters of tokens, which together are all that it processed: of prompts, and of answers."""
    prefix: tuple[str, str] | None = None
    """Counters of the prompt tokens that it looked up in its prefix cache, and of those that were there."""
    of_its_loop: bool = False
    """Whether the loop that computes also writes the page: then no page is no step."""

    @property
    def busy(self) -> frozenset[str]:
        """The metrics that together count the requests in it."""
        return frozenset(filter(None, (self.running, self.waiting)))

    @property
    def names(self) -> frozenset[str]:
        """Every metric that is read."""
        one = (self.running, self.waiting, self.kv_usage, self.preemptions)
        return frozenset([*filter(None, one), *self.steps, *self.tokens, *(self.prefix or ())])


@dataclass(frozen=True)
class EngineSleep:
    """How it is put to sleep: its device memory is free then, and its weights wait in the machine's."""

    flag: str
    """The argument with which it can."""
    environment: Mapping[str, str]
    """What it needs beside that to be told over HTTP."""
    path: str
    """Where it is put to sleep; it answers once it sleeps."""
    wake_path: str
    asked_path: str
    """Where it says whether it sleeps: `{"is_sleeping": true}`."""
    memory_metric: str | None = None
    """Where its Prometheus page says how much device memory it has, in bytes; None: the device itself is asked."""


@dataclass(frozen=True)
class EngineProfile:
    """One kind of engine. A launch has a copy that says what this very start of it can do."""

    name: str
    """As `--engine` names it."""
    words: str
    """What it is, for a person."""
    launch: str
    """The worker's function that describes a start of it, as `module:function`; see kind.py there."""
    source: EngineSource
    health_paths: tuple[str, ...] = ("/health",)
    """Where a 200 says that it can work; the first that it has counts."""
    lists_models: bool = True
    """Whether /v1/models lists what it serves: then it is ready once its model is in that list."""
    load: LoadMetrics | None = None
    """None: it does not say how loaded it is."""
    priority: EnginePriority = EnginePriority.NONE
    abort: EngineAbort = EngineAbort.DISCONNECT
    abort_path: str = "/abort_request"
    id_field: str = "rid"
    """Where the engine is told a request by its id: where, and the field of a request that names it."""
    tokenizer: str | None = None
    """The path of a tokenizer that takes and answers what vLLM's does."""
    request_ids: bool = False
    """Whether it takes `x-request-id` over into its answers and logs."""
    cache_salt: bool = False
    """Whether it takes `cache_salt`, which parts its prefix cache by tenant."""
    takes_lists: bool = False
    """Whether many inputs of embeddings may be one request, each answered as if it were alone."""
    busy_statuses: frozenset[int] = frozenset()
    """What it answers when it has enough for now, and so is a 503 with a retry-after: no failures of the line's."""
    errors: ErrorShape = ErrorShape.OPENAI
    adapters: str | None = None
    """The path at which it loads a LoRA adapter while it runs."""
    sleep: EngineSleep | None = None
    """How it sleeps in a pool, if it can."""
    takes_dtype: bool = False
    """Whether `--dtype` says in which number format it computes."""
    knobs: tuple[tuple[Knob, str], ...] = ()
    """What `penstock tune` tries unless told, and the argument that turns it."""
    gaps: tuple[str, ...] = ()
    """What else is known not to work, a sentence each."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether somebody else starts it, and may change it at any time."""
        return self.source is EngineSource.ADDRESS

    @property
    def lacks(self) -> tuple[EngineLack, ...]:
        """What it is without."""
        has = {
            EngineLack.PRIORITY: self.priority is not EnginePriority.NONE,
            EngineLack.ABORT: self.abort is not EngineAbort.NONE,
            EngineLack.METRICS: self.load is not None,
            EngineLack.TOKENIZER: self.tokenizer is not None,
            EngineLack.REQUEST_IDS: self.request_ids,
            EngineLack.CACHE_SALT: self.cache_salt,
            EngineLack.LISTS: self.takes_lists,
        }
        return tuple(lack for lack in EngineLack if not has[lack])

    def is_busy(self, status: int, hold_seconds: float | None) -> bool:
        """Whether an answer says that it has enough for now; `hold_seconds` is what its headers say of how long."""
        return status in self.busy_statuses or bool(self.busy_statuses and status == 503 and hold_seconds is not None)

    def without(self, *lacks: EngineLack) -> EngineProfile:
        """The same, without what these name."""
        off: dict[EngineLack, dict[str, Any]] = {
            EngineLack.PRIORITY: {"priority": EnginePriority.NONE},
            EngineLack.ABORT: {"abort": EngineAbort.NONE},
            EngineLack.METRICS: {"load": None},
            EngineLack.TOKENIZER: {"tokenizer": None},
            EngineLack.REQUEST_IDS: {"request_ids": False},
            EngineLack.CACHE_SALT: {"cache_salt": False},
            EngineLack.LISTS: {"takes_lists": False},
        }
        return replace(self, **{name: value for lack in lacks for name, value in off[lack].items()})

    def told_priority(self, priority: int) -> int | None:
        """A rank's number (the lower goes first) as this engine is told it; None if it is told none."""
        if self.priority is EnginePriority.NONE:
            return None
        return priority if self.priority is EnginePriority.LOW_FIRST else -priority
