"""Batch estimates: what a batch would take: sample → count tokens → add up → put it behind the backlog.

Nothing is written, and a file of any size is read in some small ranges.
"""

from __future__ import annotations

import asyncio
import dataclasses
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from penstock.blobs.store import Blobs
from penstock.domain.accounts.access import check_model
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
from penstock.domain.accounts.eta import FASTER, SLOWER, OpenWork, Span, Unknown, span
from penstock.domain.accounts.price import Price
from penstock.domain.accounts.tokens import Usage
from penstock.domain.api_errors import BadRequest, Unreadable
from penstock.domain.file import BATCH
from penstock.domain.fleet.model import ModelFacts
from penstock.domain.inference_endpoints import BATCHED, COMPUTING
from penstock.domain.work.batch import LineError, parse_window
from penstock.domain.work.lane import Lane
from penstock.formats import input as lines
from penstock.formats import prompt
from penstock.formats.input import Checked
from penstock.service.calls import tokenize
from penstock.service.calls.call import Calls
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.service.estimates import eta, sample, token_heuristic
from penstock.service.estimates.sample import Sample, Sampled
from penstock.settings import Settings
from penstock.settings.dispatch import DispatchSettings
from penstock.settings.limits import LimitSettings
from penstock.settings.lines import LineSettings
from penstock.store.accounts import prices
from penstock.store.batches import files
from penstock.store.fleet import models

TOKENIZE_SECONDS: Final = 5.0
_NO_FACTS: Final = ModelFacts()


@dataclass(frozen=True)
class EstimateRequest:
    """What is to be estimated: a batch over a file, or requests as a job has them."""

    tenant: str
    endpoint: str
    lane: Lane
    completion_window: str
    input_file: str | None = None
    requests: Sequence[bytes] = ()
    allowed_models: frozenset[str] | None = None


@dataclass(frozen=True)
class OfModel:
    """One model's part of it."""

    lines: Spread = NOTHING
    input_tokens: Spread = NOTHING
    output_tokens: Spread = NOTHING

    def __add__(self, other: OfModel) -> OfModel:
        return OfModel(
            self.lines + other.lines,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True)
class BatchEstimate:
    """What it would take, and what that is based on."""

    lines: Spread
    lines_counted: bool
    all: OfModel
    models: Mapping[str, OfModel]
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


@dataclass(frozen=True)
class _Line:
    """A sampled line that a batch may hold."""

    sampled: Sampled
    checked: Checked
    prompt: prompt.Prompt | None
    choices: int
    least: int
    fills: bool


@dataclass(frozen=True)
class _Known:
    """What is known of the sample's lines and their models."""

    sample: Sample
    lines: Mapping[int, _Line]
    """By the identity of what was sampled."""
    counted: Mapping[bytes, int]
    """Tokens, as an engine's tokenizer counted them, of lines that it could be asked about."""
    facts: Mapping[str, ModelFacts]
    endpoint: str
    settings: Settings

    def of(self, model: str) -> list[_Line]:
        return [line for line in self.lines.values() if line.checked.model == model]

    @property
    def input_basis(self) -> InputBasis:
        if self.counted and 2 * len(self.counted) >= len({line.sampled.line for line in self.lines.values()}):
            return "tokenizer"
        names = {line.checked.model for line in self.lines.values()}
        return "measured" if all(self.facts.get(name, _NO_FACTS).bytes_per_token for name in names) else "assumed"

    @property
    def output_basis(self) -> OutputBasis:
        if self.endpoint in COMPUTING:
            return "none"
        names = {line.checked.model for line in self.lines.values()}
        measured = all(self.facts.get(name, _NO_FACTS).output_tokens is not None for name in names)
        return "measured" if measured and names else "limits"


async def estimate(
    db: AsyncDatabase, blobs: Blobs, calls: Calls, call_id: str, wanted: EstimateRequest, settings: Settings
) -> BatchEstimate:
    """Say what this would take; raise BadRequest if it can't be a batch, Forbidden for a model that is not allowed."""
    if wanted.endpoint not in BATCHED:
        raise BadRequest(f"endpoint must be one of {', '.join(BATCHED)}.", param="endpoint")
    window = parse_window(wanted.completion_window, settings.max_window_seconds)
    found = await _sample(db, blobs, wanted)
    looked, error = await asyncio.to_thread(_look, found, wanted.endpoint, settings)
    for line in looked:
        check_model(wanted.allowed_models, line.checked.model, "body.model")
    told = await db.run(_ask, wanted, {line.checked.model for line in looked}, window, settings)
    works = told.works
    good = [line for line in looked if line.checked.model in works]
    if error is None and len(good) < len(looked):
        name = next(line.checked.model for line in looked if line.checked.model not in works)
        error = LineError("model_not_found", f"The model {name!r} does not exist.", "body.model")
    counted = await _count(calls, call_id, wanted.tenant, good)
    known = _Known(found, {id(one.sampled): one for one in good}, counted, told.facts, wanted.endpoint, settings)
    parts = _by_model(known)
    seconds, reason = _seconds(parts, works, settings)
    return BatchEstimate(
        lines=exactly(found.count) if found.counted else _lines(found),
        lines_counted=found.counted,
        all=sum(parts.values(), OfModel()),
        models=parts,
        seconds=seconds,
        reason=reason,
        meets_deadline=None if seconds is None else seconds.expected <= window.total_seconds(),
        token_cost=_token_cost(parts, told.prices),
        gpu_cost=_gpu_cost(parts, told),
        currency=next((price.currency for price in told.prices.values()), None),
        sampled_lines=len(found.lines),
        bad_lines=sum(bool(one.line) for one in found.lines) - len(good),
        first_error=error,
        input_basis=known.input_basis,
        output_basis=known.output_basis,
    )


async def _sample(db: AsyncDatabase, blobs: Blobs, wanted: EstimateRequest) -> Sample:
    if wanted.input_file is None:
        return await asyncio.to_thread(sample.of_lines, wanted.requests)
    file = await db.run(lambda tx: files.get(tx.conn, wanted.tenant, wanted.input_file or ""))
    if file is None:
        message = f"No such file: {wanted.input_file!r}. It does not exist, was deleted or has expired."
        raise BadRequest(message, param="input_file_id")
    if file.purpose != BATCH:
        raise BadRequest(f"The file's purpose must be 'batch', not {file.purpose!r}.", param="input_file_id")
    try:
        return await asyncio.to_thread(sample.of_blob, blobs, file.blob_key, file.bytes, zlib.crc32(file.id.encode()))
    except Unreadable:
        raise BadRequest("The file was deleted at this moment.", param="input_file_id") from None


def _look(found: Sample, endpoint: str, settings: LimitSettings) -> tuple[list[_Line], LineError | None]:
    """The sample's good lines, and what is wrong with the first bad one."""
    good, first = [], None
    for one in found.lines:
        if not one.line:
            continue
        checked = lines.check(one.line, 0, endpoint, settings.max_custom_id_bytes)
        if isinstance(checked, LineError):
            first = first or checked
            continue
        body = lines.read(0, one.line).body
        choices, least, fills = prompt.extras(body)
        good.append(_Line(one, checked, prompt.of(endpoint, body), choices, least, fills))
    return good, first


@dataclass(frozen=True)
class _Told:
    """What the database says of the models that lines name."""

    works: Mapping[str, OpenWork]
    facts: Mapping[str, ModelFacts]
    prices: Mapping[str, Price]
    gpu_per_token: Mapping[str, float]
    """Microseconds."""


def _ask(
    tx: Transaction, wanted: EstimateRequest, names: set[str], window: timedelta, settings: DispatchSettings
) -> _Told:
    named = sorted(names)
    works = eta.ahead(tx, wanted.tenant, named, wanted.lane, window, settings)
    valid = prices.valid(tx.conn, named)
    return _Told(works, models.facts(tx.conn, named), valid, prices.gpu_per_token(tx.conn, named) if valid else {})


async def _count(calls: Calls, call_id: str, tenant: str, good: list[_Line]) -> dict[bytes, int]:
    prompts = {line.sampled.line or b"": line.prompt for line in good}
    counted = await tokenize.count(calls, call_id, tenant, list(prompts.values()), TOKENIZE_SECONDS)
    return {line: tokens for line, tokens in zip(prompts, counted, strict=True) if tokens is not None}


def _by_model(known: _Known) -> dict[str, OfModel]:
    """Each model's part. Lines that are too long to be looked at count as those of the model that has most."""
    names = Counter(line.checked.model for line in known.lines.values())
    return {name: _add_up(known, name, takes_long=place == 0) for place, (name, _) in enumerate(names.most_common())}


def _add_up(known: _Known, model: str, *, takes_long: bool) -> OfModel:
    mine = {id(line.sampled) for line in known.of(model)}
    per_byte = _tokens_per_byte(known, model)
    parts = []
    for one in known.sample.lines:
        line = known.lines[id(one)] if id(one) in mine else None
        if line is not None:
            parts.append(OfModel(exactly(1.0), _asked(known, line, per_byte), _answered(known, line)))
        elif one.line is None and takes_long:
            said = token_heuristic.answer_tokens(None, known.endpoint, known.facts.get(model), known.settings)
            asked = _roughly(one.line_bytes * (per_byte or 1 / known.settings.bytes_per_token), "assumed")
            parts.append(OfModel(exactly(1.0), asked, output_tokens(AnswerTokens(said, None))))
        else:
            parts.append(OfModel())
    weights, whole = [one.weight for one in known.sample.lines], known.sample.whole
    return OfModel(
        total(weights, [part.lines for part in parts], whole),
        total(weights, [part.input_tokens for part in parts], whole),
        total(weights, [part.output_tokens for part in parts], whole),
    )


def _tokens_per_byte(known: _Known, model: str) -> float | None:
    """Of lines that were counted, else as the model's earlier lines had it, else not known."""
    counted = [line.sampled for line in known.of(model) if line.sampled.line in known.counted]
    if counted:
        return sum(known.counted[one.line or b""] for one in counted) / sum(one.line_bytes for one in counted)
    measured = known.facts.get(model, _NO_FACTS).bytes_per_token
    return 1 / measured if measured else None


def _asked(known: _Known, line: _Line, per_byte: float | None) -> Spread:
    counted = known.counted.get(line.sampled.line or b"")
    if counted is not None:
        return exactly(counted)
    if per_byte is None:
        return _roughly(len(line.checked.body) / known.settings.bytes_per_token, "assumed")
    return _roughly(line.sampled.line_bytes * per_byte, "measured")


def _roughly(tokens: float, basis: InputBasis) -> Spread:
    few, many = INPUT_SLACK[basis]
    return Spread(tokens * few, tokens, tokens * many)


def _answered(known: _Known, line: _Line) -> Spread:
    facts, most = known.facts.get(line.checked.model), line.checked.max_output_tokens
    expected = token_heuristic.answer_tokens(most, known.endpoint, facts, known.settings)
    if known.endpoint in COMPUTING:
        return NOTHING
    measured = facts is not None and facts.output_tokens is not None
    return output_tokens(AnswerTokens(expected, most, line.least, line.fills, line.choices, measured))


def _lines(found: Sample) -> Spread:
    there = [exactly(0.0 if one.line == b"" else 1.0) for one in found.lines]
    return total([one.weight for one in found.lines], there, found.whole)


def _token_cost(parts: Mapping[str, OfModel], valid: Mapping[str, Price]) -> tuple[int, int, int] | None:
    """Of the tokens; what is read from a cache costs less, and nobody knows before how much that will be."""
    if not parts or not parts.keys() <= valid.keys():
        return None

    def at(how: str) -> int:
        return sum(
            valid[name].tokens(
                Usage(
                    input_tokens=round(getattr(part.input_tokens, how)),
                    output_tokens=round(getattr(part.output_tokens, how)),
                )
            )
            for name, part in parts.items()
        )

    return at("low"), at("expected"), at("high")


def _gpu_cost(parts: Mapping[str, OfModel], told: _Told) -> tuple[int, int, int] | None:
    """Of the time that such tokens took lately; how far that may be off is as with any speed."""
    if not parts or not parts.keys() <= told.prices.keys() & told.gpu_per_token.keys():
        return None

    def at(how: str, factor: float) -> int:
        spent = (
            (getattr(part.input_tokens, how) + getattr(part.output_tokens, how)) * told.gpu_per_token[name]
            * told.prices[name].gpu for name, part in parts.items()
        )  # fmt: skip
        cost: int = round(sum(spent) / factor)
        return cost

    return at("low", FASTER), at("expected", 1.0), at("high", SLOWER)


def _seconds(
    parts: Mapping[str, OfModel], works: Mapping[str, OpenWork], settings: LineSettings
) -> tuple[Spread | None, Unknown | None]:
    """Until the slowest model's last answer; or why that is not known."""
    mine = [(parts[name], works[name]) for name in parts]
    if not mine or not all(work.lines_at_once for _, work in mine):
        return None, "no_worker"
    if not all(work.tokens_per_second for _, work in mine):
        return None, "not_measured"
    spans = [_span_of(part, work, settings) for part, work in mine]
    low, expected, high = (max(getattr(one, name) for one in spans) for name in ("low", "expected", "high"))
    return Spread(low, expected, high), None


def _span_of(part: OfModel, work: OpenWork, settings: LineSettings) -> Spread:
    tokens = part.input_tokens + part.output_tokens

    def at(much: float) -> Span:
        given = dataclasses.replace(work, tokens=much, lines=max(1, round(part.lines.expected)))
        return span(given, settings.flush_seconds)

    return Spread(at(tokens.low).earliest, at(tokens.expected).expected, at(tokens.high).latest)
