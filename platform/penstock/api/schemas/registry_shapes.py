"""What versions and aliases look like on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from penstock.api.schemas.shapes import time, unix
from penstock.domain.models.alias import AliasChange
from penstock.domain.models.demand import Demand
from penstock.domain.models.tuning import Tuning
from penstock.domain.models.version import label, number_of
from penstock.service.models.versions import VersionView


class ModelTuning(BaseModel):
    """What `penstock tune` measured of a version on one type of device, started with these arguments."""

    device: str
    arguments: list[str]
    chosen: bool = Field(description="What the tuning recommends there.")
    tokens_per_second: float | None = Field(description="Prompts and answers together; null: it did not work.")
    kv_tokens: int | None = Field(description="What its KV cache holds; null: the engine does not say.")
    load_seconds: float | None = Field(description="From its start until it was ready.")
    wake_seconds: float | None = Field(description="From asleep until it answered; null: not measured.")
    memory_bytes: int | None = Field(description="Of GPUs, or of its processes where it computes on a CPU.")
    trouble: str | None = Field(description="Why it has no speed.")
    measured_at: int | None


class ModelVersion(BaseModel):
    """A version of a model: what it is never changes."""

    id: str = Field(description="As `model` of a request names it, e.g. `chat@v2`.")
    object: Literal["model_version"] = "model_version"
    model: str
    version: str = Field(pattern="^v[1-9][0-9]*$")
    state: Literal["draft", "ready", "retired"] = Field(
        description="`draft`: no worker has served it yet. `retired`: nobody may ask it any more."
    )
    live_workers: int
    aliases: dict[str, int] = Field(description="The aliases that stand for it, with its share of each in percent.")
    registered: bool = Field(description="A worker that started with it made it; else an operator did.")
    base: str | None = Field(description="Of an adapter: the name of the version that it hangs on.")
    source: str | None = Field(description="What engines load; for operators, as are the next three.")
    engine: str | None
    arguments: list[str] | None = Field(description="The engine's; values that look like secrets are not kept.")
    digest: str | None = Field(description="What makes its answers its own; null too before a worker has served it.")
    tunings: list[ModelTuning] | None = Field(description="What `penstock tune` measured of it; for operators.")
    created_at: int
    ready_at: int | None
    retired_at: int | None


class AliasDemand(BaseModel):
    """What an eval must have found of a version before its share grows."""

    eval_id: str
    scorer: str
    at_least: float = Field(description="From 0 to 1, for the lower end of the 95 % interval of the scorer's mean.")


class ModelAlias(BaseModel):
    """What an alias stands for now."""

    id: str = Field(description="As `model` of a request names it, e.g. `chat@canary`; `chat` alone is `chat@stable`.")
    object: Literal["model_alias"] = "model_alias"
    model: str
    alias: str
    weights: dict[str, int] = Field(description="Percent by version, 100 in all.")
    guard: dict[str, float] | None = Field(description="When a new version's share is taken back; null: never.")
    demand: AliasDemand | None = Field(description="What a version must have shown before its share grows; null: "
                                       "nothing. For operators.")  # fmt: skip
    reason: str = Field(description="Why it is so.")
    changed_by: str | None = Field(description="The key's id, `cli` or `platform`; for operators.")
    changed_at: int


class AliasHistory(BaseModel):
    """The changes of an alias, newest first; the first is what holds, without weights if it is gone."""

    object: Literal["list"] = "list"
    data: list[ModelAlias]


class ModelAliases(AliasHistory):
    """What each alias stands for."""


class DeletedAlias(BaseModel):
    """Confirms that an alias stands for nothing."""

    id: str
    object: Literal["model_alias"] = "model_alias"
    deleted: bool = True


class Repin(BaseModel):
    """What was pinned anew."""

    object: Literal["repin"] = "repin"
    batches: int
    slices: int


def version(one: VersionView, *, operator: bool) -> ModelVersion:
    """A version's shape; how it is started is an operator's to know."""
    found = one.version
    definition = found.definition if operator else None
    return ModelVersion(
        id=found.name,
        model=found.model,
        version=found.label,
        state=found.state.value,
        live_workers=one.workers,
        aliases=one.aliases,
        registered=found.registered,
        base=base_name(found.definition.base),
        source=definition and definition.source,
        engine=definition and definition.engine,
        arguments=list(definition.arguments) if definition else None,
        digest=found.digest if operator else None,
        tunings=[_tuning(tuned) for tuned in one.tunings] if operator else None,
        created_at=unix(found.created_at),
        ready_at=time(found.ready_at),
        retired_at=time(found.retired_at),
    )


def _tuning(one: Tuning) -> ModelTuning:
    return ModelTuning(
        device=one.device,
        arguments=list(one.definition.arguments),
        chosen=one.chosen,
        tokens_per_second=one.tokens_per_second,
        kv_tokens=one.kv_tokens,
        load_seconds=one.load_seconds,
        wake_seconds=one.wake_seconds,
        memory_bytes=one.memory_bytes,
        trouble=one.trouble,
        measured_at=time(one.measured_at),
    )


def base_name(queue: str | None) -> str | None:
    """The name of an adapter's base: its first version's queue is the plain name."""
    if queue is None:
        return None
    return queue if number_of(queue.rpartition("@")[2]) else f"{queue}@{label(1)}"


def _demand(one: Demand) -> AliasDemand:
    return AliasDemand(eval_id=one.eval, scorer=one.scorer, at_least=one.at_least)


def alias(one: AliasChange, *, operator: bool) -> ModelAlias:
    """An alias's shape."""
    weights = one.split.weights if one.split else {}
    return ModelAlias(
        id=f"{one.model}@{one.alias}",
        model=one.model,
        alias=one.alias,
        weights={label(number): weight for number, weight in weights.items()},
        guard=dict(one.guard) if one.guard is not None else None,
        demand=_demand(one.demand) if operator and one.demand else None,
        reason=one.reason,
        changed_by=one.actor if operator else None,
        changed_at=unix(one.at),
    )
