"""Batch estimates: what a batch would take: sample → count tokens → add up → put it behind the backlog.

Nothing is written, and a file of any size is read in some small ranges.
"""

from __future__ import annotations

import asyncio
import functools
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Final, TypeVar

from penstock.blobs.store import Blobs
from penstock.domain.accounts.access import MOST_NAMED, allows, check_model, not_allowed, only_one, unknown
from penstock.domain.accounts.batch_estimate import (
    INPUT_SLACK,
    NOTHING,
    AnswerTokens,
    InputBasis,
    OutputBasis,
    Spread,
    exactly,
    output_tokens,
    total,
)
from penstock.domain.accounts.eta import OpenWork, Unknown
from penstock.domain.accounts.price import Price
from penstock.domain.api_errors import BadRequest, Unreadable
from penstock.domain.ensembles.ensemble import Ensemble
from penstock.domain.ensembles.escalation import ALWAYS, Reached, reached
from penstock.domain.file import BATCH
from penstock.domain.fleet.model import ModelFacts
from penstock.domain.inference_endpoints import BATCHED, COMPUTING
from penstock.domain.work.batch import LineError, parse_window
from penstock.domain.work.terms import OnInvalid
from penstock.service.calls import tokenize
from penstock.service.calls.call import Calls
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.service.ensembles.routing import Router
from penstock.service.estimates import eta, model_part, sample, token_heuristic
from penstock.service.estimates.asked_line import AskedLine, SeenLine, look
from penstock.service.estimates.estimate_request import EstimateRequest
from penstock.service.estimates.model_part import ModelPart
from penstock.service.estimates.sample import Looking, Sample, Sampled
from penstock.service.models import registry
from penstock.settings import Settings
from penstock.settings.dispatch import DispatchSettings
from penstock.store.accounts import prices
from penstock.store.batches import files
from penstock.store.fleet import models
from penstock.store.models import ensembles

V = TypeVar("V")

TOKENIZE_SECONDS: Final = 5.0
_NO_FACTS: Final = ModelFacts()
VERDICT_TOKENS: Final = 8.0
"""What a judge is expected to need for a number; a choice. It may be as long as its limit."""


@dataclass(frozen=True)
class BatchEstimate:
    """What it would take, and what that is based on."""

    lines: Spread
    lines_counted: bool
    all: ModelPart
    models: Mapping[str, ModelPart]
    seconds: Spread | None
    """Until its last answer is recorded; None with a `reason`."""
    reason: Unknown | None
    meets_deadline: bool | None
    token_cost: tuple[int, int, int] | None
    """In picounits of `currency`; None where a model has no price."""
    gpu_cost: tuple[int, int, int] | None
    """The same of the GPUs' time; None also where nobody knows what a token takes of it."""
    currency: str | None
    sampled_lines: int
    bad_lines: int
    first_error: LineError | None
    input_basis: InputBasis
    output_basis: OutputBasis


_Sample = Sample[SeenLine | LineError]


@dataclass(frozen=True)
class _Known:
    """What is known of the sample's good lines and their models."""

    sample: _Sample
    works: Collection[str]
    """The models that there are."""
    counted: Mapping[AskedLine, int]
    """Tokens, as an engine's tokenizer counted them, of lines that it could be asked about."""
    facts: Mapping[str, ModelFacts]
    endpoint: str
    allowed: frozenset[str] | None
    settings: Settings
    reached: Mapping[str, Sequence[Reached]]
    """Of ensembles that gather: how much each member is asked."""

    def good(self, one: Sampled[SeenLine | LineError]) -> SeenLine | None:
        """What was seen there, if a batch may hold it."""
        return one.seen if isinstance(one.seen, SeenLine) and _may(one.seen, self.works, self.allowed) else None

    def asks(self, one: Sampled[SeenLine | LineError]) -> Iterator[tuple[AskedLine, Reached]]:
        """The lines that members would be asked of this one, and how much; those that never would are none."""
        seen = self.good(one)
        if seen is not None:
            routed = len(seen.lines) == 1  # of a route with a classifier: no label was needed
            parts = (ALWAYS,) if routed else self.reached[seen.asked]
            yield from (part for part in zip(seen.lines, parts, strict=True) if part[1].high)

    @cached_property
    def lines(self) -> list[AskedLine]:
        return [line for one in self.sample.lines for line, _ in self.asks(one)]

    @property
    def names(self) -> set[str]:
        return {line.model for line in self.lines}

    @property
    def input_basis(self) -> InputBasis:
        if self.counted and 2 * len(self.counted) >= len(set(self.lines)):
            return "tokenizer"
        return "measured" if all(self.facts.get(name, _NO_FACTS).bytes_per_token for name in self.names) else "assumed"

    @property
    def output_basis(self) -> OutputBasis:
        if self.endpoint in COMPUTING:
            return "none"
        names = {line.model for line in self.lines if line.endpoint not in COMPUTING}
        measured = all(self.facts.get(name, _NO_FACTS).output_tokens is not None for name in names)
        return "measured" if measured and names else "limits"


async def estimate(
    db: AsyncDatabase, blobs: Blobs, calls: Calls, call_id: str, wanted: EstimateRequest, settings: Settings
) -> BatchEstimate:
    """Say what this would take; raise BadRequest if it can't be a batch, Forbidden for a model that is not allowed."""
    if wanted.endpoint not in BATCHED:
        raise BadRequest(f"endpoint must be one of {', '.join(BATCHED)}.", param="endpoint")
    window = parse_window(wanted.completion_window, settings.max_window_seconds)
    made = await db.autocommit(lambda tx: ensembles.latest(tx.conn))
    found = await _sample(db, blobs, wanted, made, settings)
    looked = [one.seen for one in found.lines if isinstance(one.seen, SeenLine)]
    if wanted.on_invalid is OnInvalid.FAIL:
        for seen in looked:
            check_model(wanted.allowed_models, seen.asked, "body.model")
    allowed = [seen for seen in looked if allows(wanted.allowed_models, seen.asked)]
    names = {line.model for seen in allowed for line in seen.lines}
    gathers = [one for name in {seen.asked for seen in allowed} if (one := made.get(name)) and one.gathers]
    told = await db.autocommit(_ask, wanted, names, gathers, window, settings)
    works = told.works
    good = [seen for seen in looked if _may(seen, works, wanted.allowed_models)]
    error = next((one.seen for one in found.lines if isinstance(one.seen, LineError)), None)
    if error is None and len(good) < len(looked):
        name = next(seen.asked for seen in looked if not _may(seen, works, wanted.allowed_models))
        error = LineError("model_not_found", unknown(name, told.some_models, wanted.allowed_models), "body.model")
        if not allows(wanted.allowed_models, name):
            error = LineError("model_not_allowed", not_allowed(name), "body.model")
    counted = await _count(calls, call_id, wanted.tenant, [line for seen in good for line in seen.lines])
    known = _Known(found, works, counted, told.facts, wanted.endpoint, wanted.allowed_models, settings, told.reached)
    parts = _by_model(known)
    seconds, reason = model_part.seconds(parts, works, settings)
    return BatchEstimate(
        lines=exactly(found.count) if found.counted else _lines(found),
        lines_counted=found.counted,
        all=sum(parts.values(), ModelPart()),
        models=parts,
        seconds=seconds,
        reason=reason,
        meets_deadline=None if seconds is None else seconds.expected <= window.total_seconds(),
        token_cost=model_part.token_cost(parts, told.prices),
        gpu_cost=model_part.gpu_cost(parts, told.prices, told.gpu_per_token),
        currency=next((price.currency for price in told.prices.values()), None),
        sampled_lines=len(found.lines),
        bad_lines=sum(one.seen is not None for one in found.lines) - len(good),
        first_error=error,
        input_basis=known.input_basis,
        output_basis=known.output_basis,
    )


def _may(seen: SeenLine, works: Collection[str], allowed: frozenset[str] | None) -> bool:
    return allows(allowed, seen.asked) and all(line.model in works for line in seen.lines)


async def _sample(
    db: AsyncDatabase, blobs: Blobs, wanted: EstimateRequest, made: Mapping[str, Ensemble], settings: Settings
) -> _Sample:
    default = wanted.default_model
    if default is None and wanted.input_file is not None:
        default = only_one(await db.autocommit(lambda tx: models.every_name(tx.conn)), wanted.allowed_models)
    looking = Looking(
        functools.partial(look, wanted.endpoint, settings, default, made, Router(settings.bytes_per_token)),
        settings.max_line_bytes,
    )
    if wanted.input_file is None:
        return await asyncio.to_thread(sample.of_lines, wanted.requests, looking)
    file = await db.autocommit(lambda tx: files.get(tx.conn, wanted.tenant, wanted.input_file or ""))
    if file is None:
        message = f"No such file: {wanted.input_file!r}. It does not exist, was deleted or has expired."
        raise BadRequest(message, param="input_file_id")
    if file.purpose != BATCH:
        raise BadRequest(f"The file's purpose must be 'batch', not {file.purpose!r}.", param="input_file_id")
    seed = zlib.crc32(file.id.encode())
    try:
        return await asyncio.to_thread(sample.of_blob, blobs, file.blob_key, file.bytes, seed, looking)
    except Unreadable:
        raise BadRequest("The file was deleted at this moment.", param="input_file_id") from None


@dataclass(frozen=True)
class _Told:
    """What the database says of the models that lines name."""

    works: Mapping[str, OpenWork]
    facts: Mapping[str, ModelFacts]
    prices: Mapping[str, Price]
    gpu_per_token: Mapping[str, float]
    """Microseconds."""
    some_models: Sequence[str]
    """A few that there are, of those that the key may ask."""
    reached: Mapping[str, Sequence[Reached]]
    """Of ensembles that gather: how much each member is asked."""


def _ask(
    tx: Transaction,
    wanted: EstimateRequest,
    names: set[str],
    gathers: Sequence[Ensemble],
    window: timedelta,
    settings: DispatchSettings,
) -> _Told:
    queues = registry.heaviest(tx, names)
    named = sorted(set(queues.values()))
    works = eta.ahead(tx, wanted.tenant, named, wanted.lane, window, settings)
    valid = prices.valid(tx.conn, named)
    per_token = prices.gpu_per_token(tx.conn, named) if valid else {}
    some = models.first_names(tx.conn, wanted.allowed_models, MOST_NAMED + 1)

    def by_asked(found: Mapping[str, V]) -> dict[str, V]:
        return {asked: found[queue] for asked, queue in queues.items() if queue in found}

    facts = models.facts(tx.conn, named)
    much = {one.name: reached(one.definition, ensembles.counts(tx.conn, one)) for one in gathers}
    return _Told(by_asked(works), by_asked(facts), by_asked(valid), by_asked(per_token), some, much)


async def _count(calls: Calls, call_id: str, tenant: str, good: Sequence[AskedLine]) -> dict[AskedLine, int]:
    asked = [line for line in dict.fromkeys(good) if line.prompt is not None]
    counted = await tokenize.count(calls, call_id, tenant, [line.prompt for line in asked], TOKENIZE_SECONDS)
    return {line: tokens for line, tokens in zip(asked, counted, strict=True) if tokens is not None}


def _by_model(known: _Known) -> dict[str, ModelPart]:
    names = Counter(line.model for line in known.lines)
    return {name: _add_up(known, name) for name, _ in names.most_common()}


def _add_up(known: _Known, model: str) -> ModelPart:
    per_byte = _tokens_per_byte(known, model)
    parts = []
    for one in known.sample.lines:
        asks = ((line, much) for line, much in known.asks(one) if line.model == model)
        parts.append(sum((_part(known, line, per_byte).times(much) for line, much in asks), ModelPart()))
    weights, whole = [one.weight for one in known.sample.lines], known.sample.whole
    return ModelPart(
        total(weights, [part.lines for part in parts], whole),
        total(weights, [part.input_tokens for part in parts], whole),
        total(weights, [part.output_tokens for part in parts], whole),
    )


def _part(known: _Known, line: AskedLine, per_byte: float | None) -> ModelPart:
    return ModelPart(exactly(1.0), _asked(known, line, per_byte) + _read(known, line, per_byte), _answered(known, line))


def _tokens_per_byte(known: _Known, model: str) -> float | None:
    """Of lines that were counted, else as the model's earlier lines had it, else not known."""
    counted = [line for line in known.lines if line.model == model and line in known.counted]
    if counted:
        return sum(known.counted[line] for line in counted) / sum(line.bytes for line in counted)
    measured = known.facts.get(model, _NO_FACTS).bytes_per_token
    return 1 / measured if measured else None


def _asked(known: _Known, line: AskedLine, per_byte: float | None) -> Spread:
    counted = known.counted.get(line)
    if counted is not None:
        return exactly(counted)
    if per_byte is None:
        return _roughly(line.body_bytes / known.settings.bytes_per_token, "assumed")
    return _roughly(line.bytes * per_byte, "measured")


def _read(known: _Known, line: AskedLine, per_byte: float | None) -> Spread:
    """What a judge reads of answers: the first choice of each, all of them cut at so many characters."""
    if not line.reads:
        return NOTHING
    found = sum((_answered(known, replace(one, answers=1)) for one in line.reads), NOTHING)
    most = line.reads_chars * min(1.0, per_byte or 1 / known.settings.bytes_per_token)
    return Spread(min(found.low, most), min(found.expected, most), min(found.high, float(line.reads_chars)))


def _roughly(tokens: float, basis: InputBasis) -> Spread:
    few, many = INPUT_SLACK[basis]
    return Spread(tokens * few, tokens, tokens * many)


def _answered(known: _Known, line: AskedLine) -> Spread:
    if line.endpoint in COMPUTING:
        return NOTHING
    facts, most = known.facts.get(line.model), line.most
    expected = token_heuristic.answer_tokens(most, line.endpoint, facts, known.settings)
    measured = facts is not None and facts.output_tokens is not None
    if line.names:
        expected, measured = min(expected, VERDICT_TOKENS), False
    return output_tokens(AnswerTokens(expected, most, line.least, line.fills, line.answers, measured))


def _lines(found: _Sample) -> Spread:
    there = [exactly(0.0 if one.seen is None else 1.0) for one in found.lines]
    return total([one.weight for one in found.lines], there, found.whole)
