"""Ensembles: added by an operator, each time as a new version; looked at; removed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.domain.api_errors import BadRequest, Conflict, NotFound
from penstock.domain.ensembles.definition import read
from penstock.domain.ensembles.ensemble import Ensemble, EnsembleDefinition, MemberCounts
from penstock.domain.models.name import check_name
from penstock.domain.models.registry import UnknownTarget
from penstock.domain.nesting import MOST_LEVELS, is_too_deep
from penstock.scoring.bounded_regex import BoundedRegex
from penstock.scoring.bounded_schema import BoundedSchema
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.service.models import registry
from penstock.store.fleet import models
from penstock.store.models import ensembles

MOST_BYTES: Final = 64 * 1024
"""Of a definition as JSON."""
MOST_NAMES: Final = 200
"""Each API process reads all of them each second."""


@dataclass(frozen=True)
class EnsembleView:
    """A version of an ensemble, and what went to each of its members."""

    ensemble: Ensemble
    counts: Mapping[str, MemberCounts]
    agreement: float | None = None
    """Of a vote: how much its members agree on a line, on average."""


def add(tx: Transaction, definition: Mapping[str, Any]) -> Ensemble:
    """Add an ensemble, or the next version of one; just the same again is the same version.

    In force for what is planned or called from then on. Raises BadRequest with what is wrong and where (a member that
    is not there, or that is an ensemble, a rule or pattern that can't be read, too many names) and Conflict
    (`name_taken`) for a model's name.
    """
    wanted = read(definition)
    check_name(wanted.name, "An ensemble's", "name")
    if is_too_deep(definition):
        raise BadRequest(f"An ensemble is nested at most {MOST_LEVELS} levels deep.")
    if len(json.dumps(definition).encode()) > MOST_BYTES:
        raise BadRequest(f"An ensemble has at most {MOST_BYTES} bytes.")
    _check_patterns(wanted)
    ensembles.lock(tx.conn)
    if models.known(tx.conn, [wanted.name]):
        message = f"{wanted.name!r} is a model's name: give the ensemble another one."
        raise Conflict("a model", "an ensemble", message, code="name_taken")
    _check_members(tx, wanted)
    if ensembles.others(tx.conn, wanted.name) >= MOST_NAMES:
        raise BadRequest(f"There are {MOST_NAMES} ensembles already: remove one first.", param="name")
    now = ensembles.latest(tx.conn, [wanted.name]).get(wanted.name)
    if now is not None and now.definition == wanted and _said(now.definition) == _said(wanted):
        return now
    made = ensembles.insert(tx.conn, wanted.name, definition, tx.actor)
    audit.record(tx, audit.NOBODY, "ensemble.added", made.name, version=made.label)
    return made


def _said(definition: EnsembleDefinition) -> Any:
    """What it has as its operator wrote it, where true is not 1."""
    return _told_apart(
        [
            [member.params for member in definition.asked],
            [rule.when for rule in definition.rules],
            definition.accept.json_schema,
        ]
    )


def _told_apart(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _told_apart(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told_apart(one) for one in value]
    return repr(value) if isinstance(value, bool) else value


def _check_patterns(wanted: EnsembleDefinition) -> None:
    for place, pattern in wanted.patterns.items():
        BoundedRegex(pattern, place)
    if wanted.accept.json_schema is not None:
        BoundedSchema(wanted.accept.json_schema, "accept.json_schema")


def _check_members(tx: Transaction, wanted: EnsembleDefinition) -> None:
    now = registry.read(tx)
    for place, member in enumerate(wanted.asked):
        reader = "judge.model" if wanted.judge else "classifier.model"
        at = f"members[{place}].model" if place < len(wanted.members) else reader
        if now.ensemble(member.model) is not None:
            raise BadRequest(f"{member.model!r} is an ensemble: its members are models.", param=at)
        try:
            now.resolve(member.model, 0)
        except UnknownTarget as error:
            raise BadRequest(error.message, code=error.code, param=at) from None


def page(tx: Transaction) -> list[Ensemble]:
    """Every ensemble by name, in the version that counts now."""
    found = ensembles.latest(tx.conn)
    return [found[name] for name in sorted(found)]


def view(tx: Transaction, name: str, version: int | None = None) -> EnsembleView:
    """One version, the one that counts now unless it is named; raise NotFound (`ensemble_not_found`)."""
    if version is None:
        found = ensembles.latest(tx.conn, [name]).get(name)
    else:
        found = ensembles.find(tx.conn, name, version)
    if found is None:
        raise _none(name if version is None else f"{name} v{version}")
    return EnsembleView(found, ensembles.counts(tx.conn, found), ensembles.agreement(tx.conn, found))


def remove(tx: Transaction, name: str) -> None:
    """Let a name stand for nothing: what is planned goes on. Raises NotFound (`ensemble_not_found`)."""
    ensembles.lock(tx.conn)
    if not ensembles.remove(tx.conn, name):
        raise _none(name)
    audit.record(tx, audit.NOBODY, "ensemble.removed", name)


def _none(name: str) -> NotFound:
    return NotFound("ensemble", name, param="name", code="ensemble_not_found")
