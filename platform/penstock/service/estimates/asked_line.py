"""Asked lines: what is seen in a line of the sample, as each model would be asked it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from penstock.domain.ensembles.ensemble import ChosenMember, Ensemble, EnsembleKind
from penstock.domain.work.batch import LineError
from penstock.formats import input as lines
from penstock.formats import prompt
from penstock.formats.engine_body import with_model
from penstock.formats.input import Checked
from penstock.service.ensembles import classifying, judging
from penstock.service.ensembles.routing import Router, Unroutable
from penstock.service.estimates.sample import MOST_KEPT_BYTES
from penstock.settings.limits import LimitSettings


@dataclass(frozen=True)
class AskedLine:
    """A sampled line that a batch may hold, as one model would be asked it; equal ones are one that was met twice."""

    custom_id: str
    model: str
    """What it is a part of: its model, or the ensemble's member that is asked it."""
    endpoint: str
    bytes: int
    body_bytes: int
    most: int | None
    """How many tokens an answer may have, if it says so."""
    answers: int
    least: int
    fills: bool
    prompt: prompt.Prompt | None
    """None where nobody can be asked about it, and of a line that is too long to be kept."""
    reads: tuple[AskedLine, ...] = ()
    """Of a judge: the lines whose answers it reads, too: what else it is asked is in its body."""
    reads_chars: int = 0
    """Of all those answers together at most."""
    names: bool = False
    """Of a judge or a classifier: its answer is a number, or a label."""


@dataclass(frozen=True)
class SeenLine:
    """What was seen in a sampled line that a batch may hold."""

    asked: str
    """What it names."""
    lines: tuple[AskedLine, ...]
    """As each model would be asked it: one; or each member of an ensemble that gathers, in order, and its judge."""


def look(
    endpoint: str,
    settings: LimitSettings,
    default_model: str | None,
    made: Mapping[str, Ensemble],
    router: Router,
    line: bytes | None,
) -> SeenLine | LineError:
    """What a line asks for, or why validation would refuse it; `made` are the ensembles that there are."""
    if line is None:
        return LineError("invalid_request", lines.too_long(settings.max_line_bytes))
    checked = lines.check(line, 0, endpoint, settings.max_custom_id_bytes, default_model)
    if isinstance(checked, LineError):
        return checked
    ensemble = made.get(checked.model)
    if ensemble is None:
        kept = len(line) <= MOST_KEPT_BYTES
        return SeenLine(checked.model, (_line(endpoint, checked, checked.model, checked.body, len(line), kept),))
    try:
        routed = router.routed(ensemble, endpoint, checked.body)
    except Unroutable as error:
        return LineError(error.code, error.message, "body")
    kept = len(line) * len(routed.members) <= MOST_KEPT_BYTES
    found: list[AskedLine] = []
    for member in routed.members:
        body = classifying.asked(member, endpoint, _body(ensemble, member, endpoint, checked.body))
        at = member.endpoint(endpoint)
        asked = lines.check_body(checked, at, body, 0)
        if isinstance(asked, LineError):
            return asked
        body = with_model(body, member.model)  # whose tokenizer is asked
        judge = ensemble.definition.judge
        if judge is None or member.place < len(ensemble.definition.members):
            one = _line(at, asked, member.model, body, len(line), kept)
            found.append(replace(one, bytes=len(body) + 1, names=True) if member.classifier else one)
            continue
        one = _line(at, asked, member.model, body, len(body), kept and len(body) <= MOST_KEPT_BYTES)
        names = ensemble.definition.kind is not EnsembleKind.COMBINE
        found.append(replace(one, reads=tuple(found), reads_chars=judge.reads_chars, names=names))
    return SeenLine(checked.model, tuple(found))


def _body(ensemble: Ensemble, member: ChosenMember, endpoint: str, body: bytes) -> bytes:
    """What a member is asked; a judge the same with answers that are empty yet."""
    members = len(ensemble.definition.members)
    if member.place < members or member.classifier is not None:
        return body
    return judging.question(ensemble.definition, endpoint, body, [""] * members)


def _line(endpoint: str, checked: Checked, model: str, body: bytes, line_bytes: int, kept: bool) -> AskedLine:
    least, fills = prompt.extras(body)
    return AskedLine(
        custom_id=checked.custom_id,
        model=model,
        endpoint=endpoint,
        bytes=line_bytes + 1,
        body_bytes=len(body),
        most=checked.max_output_tokens,
        answers=checked.answers,
        least=least,
        fills=fills,
        prompt=prompt.of(endpoint, body) if kept else None,
    )
