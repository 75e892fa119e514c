"""What the platform looks like to an operator: overview, lanes, samples, recovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field

from penstock.api.schemas.shapes import unix
from penstock.api.schemas.worker_shapes import TtftShape, ttft
from penstock.domain.work.lane import LANES, Lane
from penstock.domain.work.open_work import LateBatch, OpenLane, RunningBatch
from penstock.service.admin.overview import LaneNow, Missing, ModelOverview, Overview
from penstock.service.admin.recovery import Recovery
from penstock.service.admin.samples import UNITS, Chart


class OpenLaneShape(BaseModel):
    """Open work of a lane."""

    batches: int = Field(description="Batches and jobs with lines that are not answered.")
    lines: int = Field(description="Lines that are not answered, without those of paused batches.")
    tokens: int = Field(description="Theirs, as engines will count them, by estimate.")
    paused_lines: int
    oldest_wait_seconds: float | None = Field(
        description="Since the oldest batch was created of which nothing runs; null if something of each runs."
    )


class OpenLanes(BaseModel):
    """Open work by lane."""

    priority: OpenLaneShape
    standard: OpenLaneShape
    flex: OpenLaneShape


class ModelNow(BaseModel):
    """One model, or version of one, at this moment."""

    model: str
    lanes: OpenLanes
    backlog_lines: int
    backlog_tokens: int
    backlog_hours: float | None = Field(
        description="What its backlog takes at the measured rate; null if no worker is ready, or none has measured."
    )
    batch_tokens_per_second: float = Field(description="Of its ready workers, while they have lines: the rate of that.")
    input_tokens_per_second: float = Field(description="Of the last minute, calls included, by engines that say so.")
    output_tokens_per_second: float = Field(description="Likewise.")
    calls: int = Field(description="Waiting calls in its workers.")
    lines_in_engine: int = Field(description="Batch lines in its engines: what those calls are beside.")
    ttft: TtftShape
    promised_ttft_p95_ms: float | None = Field(description="Null if its callers were promised nothing.")
    keeps_promise: bool | None = Field(description="Of the last minute; null without calls, or without a promise.")
    workers: int = Field(description="Ready ones.")
    workers_starting: int
    asleep_on: int = Field(description="Hosts of pools on which it is asleep.")
    slots: int = Field(description="Of its engines, for calls and lines.")
    slots_used: int


class LateBatchShape(BaseModel):
    """A batch that is expected after its deadline, reckoned as if each lane were served by deadline alone."""

    id: str
    tenant: str
    lane: Literal["priority", "standard", "flex"]
    models: list[str]
    deadline: int = Field(description="Unix seconds.")
    expected_at: int = Field(description="Unix seconds.")


class MissingShape(BaseModel):
    """What keeps work or calls from going on."""

    what: str = Field(
        description="`keeper`, `io_worker`, `gpu_worker`, `engine`, `worker`, `ingress_token` or `blobs`."
    )
    sentence: str
    mend: str = Field(description="A command, or what to do.")
    model: str | None


class OverviewShape(BaseModel):
    """The platform at one moment, over all tenants."""

    object: Literal["overview"] = "overview"
    at: int = Field(description="Unix seconds.")
    models: list[ModelNow] = Field(description="Those with open work, a live worker or a host where they sleep.")
    lanes: OpenLanes
    late_batches: int = Field(description="How many batches are expected after their deadline.")
    first_late: list[LateBatchShape] = Field(description="The first 20 of them by deadline.")
    missing: list[MissingShape] = Field(description="At most 50.")


class RunningBatchShape(BaseModel):
    """A batch of which workers hold slices."""

    id: str
    tenant: str
    models: list[str]
    slices: int
    workers: int
    lines: int = Field(description="Of those slices: lines that are not answered yet.")
    since: int = Field(description="Unix seconds: when the oldest of the slices was taken.")


class LaneShape(BaseModel):
    """A lane over all models and tenants."""

    object: Literal["lane"] = "lane"
    id: Literal["priority", "standard", "flex"]
    open: OpenLaneShape
    slots_used: int = Field(description="Slots of engines that its lines hold.")
    share: float | None = Field(description="Of all slots that batch lines hold, 0 to 1; null if none is held.")
    running_batches: int
    running: list[RunningBatchShape] = Field(description="The largest of them.")


class CurveShape(BaseModel):
    """One series of one model and lane; null of either: all together."""

    series: str
    unit: str
    model: str | None
    lane: str | None
    values: list[float | None] = Field(
        description="One for each time: the mean over its span (of `ttft_p95_ms`: the greatest). Null where nothing was"
        " sampled, and of times to first token where nobody called."
    )


class SamplesShape(BaseModel):
    """Curves over the same times; at most 1,500 points in all."""

    object: Literal["samples"] = "samples"
    step: int = Field(description="Seconds between two times.")
    times: list[int] = Field(description="Unix seconds: the ends of spans.")
    data: list[CurveShape]
    left_out: int = Field(description="Models and lanes for which there was no room: the smallest.")


class IncidentShape(BaseModel):
    """Something went wrong."""

    id: str
    at: int = Field(description="Unix seconds.")
    times: int = Field(description="How many at once.")
    about: str | None = Field(description="The id of a batch or worker, or those of deliveries; null if not known.")


class IncidentsShape(BaseModel):
    """One kind of incident."""

    name: str
    description: str
    total: int = Field(description="Since the platform was set up.")
    newest: list[IncidentShape] = Field(description="Newest first, of the last week.")


class LineSuspectShape(BaseModel):
    """A line that was in flight when an engine died."""

    batch: str
    tenant: str
    model: str | None
    line: int = Field(description="Its number in the input, from 0.")
    deaths: int
    trying: bool = Field(description="It is being asked again, apart from all others.")


class CallSuspectShape(BaseModel):
    """A waiting call that was in flight when an engine died."""

    fingerprint: str = Field(description="A hash of tenant, endpoint and body.")
    deaths: int = Field(description="From 2 on it is refused for a while.")
    last_at: int = Field(description="Unix seconds.")


class RecoveryShape(BaseModel):
    """What went wrong lately, over all tenants."""

    object: Literal["recovery"] = "recovery"
    incidents: list[IncidentsShape]
    suspect_lines: list[LineSuspectShape]
    suspect_calls: list[CallSuspectShape]


def overview(one: Overview) -> OverviewShape:
    """An overview's shape."""
    return OverviewShape(
        at=unix(one.now),
        models=[_model(it) for it in one.models],
        lanes=_lanes(one.lanes),
        late_batches=one.late_count,
        first_late=[_late(it) for it in one.late],
        missing=[_missing(it) for it in one.missing],
    )


def lane(one: LaneNow) -> LaneShape:
    """A lane's shape."""
    return LaneShape(
        id=one.lane.value,
        open=_open(one.open),
        slots_used=one.slots_used,
        share=None if one.share is None else round(one.share, 4),
        running_batches=one.running_batches,
        running=[_running(it) for it in one.running],
    )


def samples(one: Chart) -> SamplesShape:
    """A chart's shape."""
    curves = [
        CurveShape(
            series=it.series,
            unit=UNITS[it.series],
            model=it.model,
            lane=it.lane,
            values=[None if value is None else round(value, 3) for value in it.values],
        )
        for it in one.curves
    ]
    return SamplesShape(step=one.step_seconds, times=[unix(at) for at in one.times], data=curves, left_out=one.left_out)


def recovery(one: Recovery) -> RecoveryShape:
    """A look at recovery's shape."""
    return RecoveryShape(
        incidents=[
            IncidentsShape(
                name=kind.name,
                description=kind.words,
                total=kind.times,
                newest=[
                    IncidentShape(id=f"incident_{it.id}", at=unix(it.at), times=it.times, about=it.about or None)
                    for it in kind.newest
                ],
            )
            for kind in one.kinds
        ],
        suspect_lines=[
            LineSuspectShape(
                batch=it.batch, tenant=it.tenant, model=it.model, line=it.line, deaths=it.deaths, trying=it.trying
            )
            for it in one.lines
        ],
        suspect_calls=[
            CallSuspectShape(fingerprint=it.fingerprint, deaths=it.deaths, last_at=unix(it.last_at)) for it in one.calls
        ],
    )


def _open(one: OpenLane | None) -> OpenLaneShape:
    if one is None:
        return OpenLaneShape(batches=0, lines=0, tokens=0, paused_lines=0, oldest_wait_seconds=None)
    return OpenLaneShape(
        batches=one.batches,
        lines=one.lines,
        tokens=round(one.tokens),
        paused_lines=one.paused_lines,
        oldest_wait_seconds=None if one.waiting_seconds is None else round(one.waiting_seconds, 1),
    )


def _lanes(open: Mapping[Lane, OpenLane]) -> OpenLanes:
    return OpenLanes(**{lane.value: _open(open.get(lane)) for lane in LANES})


def _model(one: ModelOverview) -> ModelNow:
    return ModelNow(
        model=one.model,
        lanes=_lanes(one.lanes),
        backlog_lines=one.lines,
        backlog_tokens=round(one.tokens),
        backlog_hours=None if one.hours is None else round(one.hours, 4),
        batch_tokens_per_second=round(one.batch_tokens_per_second, 1),
        input_tokens_per_second=round(one.input_tokens_per_second, 1),
        output_tokens_per_second=round(one.output_tokens_per_second, 1),
        calls=one.calls,
        lines_in_engine=one.lines_in_engine,
        ttft=ttft(one.ttft),
        promised_ttft_p95_ms=one.promised_ttft_ms,
        keeps_promise=one.keeps_promise,
        workers=one.workers,
        workers_starting=one.starting,
        asleep_on=one.asleep,
        slots=one.slots,
        slots_used=one.slots_used,
    )


def _late(one: LateBatch) -> LateBatchShape:
    return LateBatchShape(
        id=one.batch,
        tenant=one.tenant,
        lane=one.lane.value,
        models=list(one.models),
        deadline=unix(one.deadline),
        expected_at=unix(one.expected_at),
    )


def _missing(one: Missing) -> MissingShape:
    return MissingShape(what=one.what, sentence=one.sentence, mend=one.mend, model=one.model)


def _running(one: RunningBatch) -> RunningBatchShape:
    return RunningBatchShape(
        id=one.batch,
        tenant=one.tenant,
        models=list(one.models),
        slices=one.slices,
        workers=one.workers,
        lines=one.lines,
        since=unix(one.since),
    )
