"""Shapes: how the echo engine looks when it plays another kind: its pages, errors and metrics, as the profile says.

It plays by the profile that the worker reads, so what is tried against it is that profile; what real servers of that
kind do was read in their sources and documentation, and is in the profile's own words. It says that it plays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.domain.engines.profile import EngineLack, EngineProfile, ErrorShape, read_lacks
from penstock.domain.engines.profiles import ECHO, PROFILES
from penstock_worker.engine.echo.body import Body
from penstock_worker.engine.echo.counters import Counters

DEFAULT_SEQS: Final = 128
"""How many requests it answers at once, unless it is told."""
_TYPES: Final = {400: "validation", 404: "not_found", 422: "validation", 429: "overloaded", 503: "overloaded"}


class EchoShape:
    """What it plays, and what it is without: `plays` is a profile's name, `lacks` names of lacks, by comma."""

    def __init__(self, plays: str | None = None, lacks: str = "") -> None:
        """Raises ValueError for a name that is none."""
        if plays is not None and plays not in PROFILES:
            raise ValueError(f"--plays knows {', '.join(PROFILES)}, not {plays!r}")
        played = PROFILES[plays] if plays else ECHO
        self.profile: EngineProfile = played.without(*read_lacks(lacks))
        self.plays = plays
        refused = {"priority": EngineLack.PRIORITY, "cache_salt": EngineLack.CACHE_SALT}
        self._refused = tuple(field for field, lack in refused.items() if self.lacks(lack))

    @property
    def owned_by(self) -> str:
        """How its model listing calls it."""
        return f"penstock-echo (simulated, plays {self.plays})" if self.plays else "penstock-echo (simulated)"

    def lacks(self, lack: EngineLack) -> bool:
        """Whether it is without this."""
        return lack in self.profile.lacks

    def unknown_field(self, body: Body) -> str | None:
        """A field that it refuses, as servers do that check theirs."""
        return next((field for field in self._refused if field in body), None)

    def error(self, body: Mapping[str, Any]) -> Body:
        """An error of vLLM's shape, in that of the profile."""
        said = body["error"]
        match self.profile.errors:
            case ErrorShape.FLAT:
                return {"object": "error", **said}
            case ErrorShape.TEXT:
                return {"error": said["message"], "error_type": _TYPES.get(said["code"], "generation")}
            case ErrorShape.DETAIL:
                return {"detail": said["message"]}
            case _:
                return dict(body)

    def metrics(self, counters: Counters) -> str | None:
        """Its Prometheus page; None if it has none."""
        load = self.profile.load
        if load is None:
            return None
        rows: dict[str, float] = {load.running: counters.running}
        for name, value in (
            (load.waiting, counters.waiting),
            (load.kv_usage, counters.kv_usage),
            (load.preemptions, counters.preemptions),
        ):
            if name:
                rows[name] = value
        both = (counters.voice.prompt_tokens, counters.voice.generation_tokens)
        rows |= dict(zip(load.tokens, both, strict=False))
        rows |= dict(zip(load.prefix or (), (counters.voice.prompt_tokens, 0), strict=False))  # it caches nothing
        rows |= {name: counters.answered for name in load.steps if name not in load.tokens and "iteration" not in name}
        rows["echo:requests_aborted_total"] = counters.aborted
        config = f'{load.kv_config}{{block_size="16",num_gpu_blocks="4096"}} 1.0\n' if load.kv_config else ""
        if self.profile.sleep and self.profile.sleep.memory_metric:
            rows[self.profile.sleep.memory_metric] = counters.device_memory_bytes
        label = f'{{engine="0",model_name="{counters.model}"}}'
        return "".join(_row(name, label, value) for name, value in rows.items()) + config


def _row(name: str, label: str, value: float) -> str:
    kind = "counter" if name.endswith("_total") else "gauge"
    family = name.removesuffix("_total")
    return f"# HELP {family} Simulated by the echo engine.\n# TYPE {family} {kind}\n{name}{label} {value}\n"
