"""Aliases: what they stand for is changed, promoted and rolled back; each is one row, and audited."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Final

from penstock.domain.api_errors import BadRequest, Conflict, NotFound
from penstock.domain.models.alias import AliasChange, Split, check_alias
from penstock.domain.models.demand import Demand
from penstock.domain.models.guard import GuardTerms
from penstock.domain.models.version import STABLE, VersionState
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.service.models import demands
from penstock.service.models import versions as model_versions
from penstock.store.models import aliases, ensembles, versions

_MOST_HISTORY: Final = 100


def page(tx: Transaction, model: str | None = None) -> list[AliasChange]:
    """What each alias (of one model) stands for now, by model and alias; raise NotFound."""
    if model is not None:
        model_versions.check_known(tx, model)
    return aliases.latest(tx.conn, model)


def get(tx: Transaction, model: str, alias: str) -> AliasChange:
    """What an alias stands for now; raise NotFound (`alias_not_found`)."""
    model_versions.check_known(tx, model)
    found = find(tx, model, alias)
    if found is None:
        raise NotFound("alias", f"{model}@{alias}", param="alias", code="alias_not_found")
    return found


def find(tx: Transaction, model: str, alias: str) -> AliasChange | None:
    """What an alias stands for now; None if there is none."""
    return next((one for one in aliases.latest(tx.conn, model) if one.alias == alias), None)


def history(tx: Transaction, model: str, alias: str) -> list[AliasChange]:
    """The latest 100 changes of an alias, newest first; raise NotFound."""
    found = aliases.history(tx.conn, model, alias, limit=_MOST_HISTORY)
    if not found:
        get(tx, model, alias)
    return found


def change(
    tx: Transaction,
    model: str,
    alias: str,
    weights: Mapping[int, int],
    *,
    guard: Mapping[str, float] | None = None,
    reason: str = "",
) -> AliasChange:
    """Let an alias stand for these versions, by weights in percent, from now on: for what is planned or called then.

    What the alias demands of a version that gains stays as it is. Raises NotFound for an unknown model or version,
    Conflict for a retired one (`version_retired`) or one that does not meet the demand (`not_proven`), BadRequest for
    weights that don't add up.
    """
    check_alias(alias)
    split = Split.of(weights)
    terms = GuardTerms.of(guard)
    _lock(tx, model)
    now = find(tx, model, alias)
    for number in split.weights:
        version = model_versions.get(tx, model, number)
        if version.state is VersionState.RETIRED:
            message = f"{version.name} is retired: no alias can stand for it."
            raise Conflict(version.state, "asked", message, code="version_retired")
    if now is not None:
        demands.check_met(tx, model, now.demand, now.split.weights if now.split else {}, split)
    given = None if terms is None else terms.as_json()
    return write(tx, model, alias, split, given, now.demand if now else None, reason)


def promote(
    tx: Transaction,
    model: str,
    number: int,
    alias: str = STABLE,
    weight: int = 100,
    guard: Mapping[str, float] | None = None,
) -> AliasChange:
    """Give a version this share of an alias, and the rest to what the alias stood for, in the parts that those had.

    Without a `guard` of its own a share stands under the guard that the alias has.

    Raises as `change` does, and BadRequest where there is nothing that the rest could go to.
    """
    if not 1 <= weight <= 100:
        raise BadRequest("A share is a whole number from 1 to 100 percent.", param="weight")
    _lock(tx, model)
    now = find(tx, model, alias)
    before = {} if now is None or now.split is None else {v: w for v, w in now.split.weights.items() if v != number}
    weights = {number: weight}
    if weight < 100:
        if not before:
            message = f"{model}@{alias} stands for no other version that the rest could go to: give it 100."
            raise BadRequest(message, param="weight")
        weights |= parted(100 - weight, before)
    if guard is None and now is not None and weight < 100:
        guard = now.guard
    return change(tx, model, alias, weights, guard=guard, reason="promoted")


def parted(whole: int, parts: Mapping[int, int]) -> dict[int, int]:
    """A whole number in whole parts like these; what rounding leaves goes to the largest."""
    total = sum(parts.values())
    made = {key: whole * part // total for key, part in parts.items()}
    made[max(parts, key=lambda key: parts[key])] += whole - sum(made.values())
    return made


def rollback(tx: Transaction, model: str, alias: str = STABLE) -> AliasChange:
    """Let an alias stand again for what it stood for before its last change; what is planned already goes on.

    Again: for what it stood for before that. Raises NotFound, or Conflict (`nothing_to_roll_back`).
    """
    _lock(tx, model)
    found = aliases.history(tx.conn, model, alias, limit=_MOST_HISTORY)
    if not found or found[0].split is None:
        get(tx, model, alias)
    before = _before(found)
    if before is None or before.split is None:
        message = f"{model}@{alias} stood for nothing else before."
        raise Conflict("first", "rolled back", message, code="nothing_to_roll_back")
    for number in before.split.weights:
        if model_versions.get(tx, model, number).state is VersionState.RETIRED:
            message = f"{model}@{alias} stood for v{number} before, which is retired."
            raise Conflict("retired", "rolled back", message, code="version_retired")
    return write(tx, model, alias, before.split, before.guard, found[0].demand, f"{_BACK}{before.id}")


_BACK: Final = "rolled back to "


def _before(found: list[AliasChange]) -> AliasChange | None:
    """What a rollback goes back to: what held before the present split did, or before the change it went back to."""
    now = found[0].split
    since = list(takewhile(lambda one: one.split == now, found))  # a demand or a guard may have changed meanwhile
    until = next((one for one in since if one.reason.startswith(_BACK)), since[-1]).id
    by_id = {one.id: one for one in found}
    while until in by_id and by_id[until].reason.startswith(_BACK):
        until = int(by_id[until].reason.removeprefix(_BACK))
    return next((one for one in found if one.id < until and one.split != now), None)


def remove(tx: Transaction, model: str, alias: str) -> None:
    """Let an alias stand for nothing: requests that name it are refused.

    Raises NotFound, or Conflict for `stable`, and where an ensemble has it as a member (`alias_in_use`).
    """
    _lock(tx, model)
    get(tx, model, alias)
    if alias == STABLE:
        raise Conflict("stable", "removed", f"{model}@{STABLE} is what {model!r} stands for: it can only be changed.")
    if made_of_it := ensembles.with_member(tx.conn, f"{model}@{alias}"):
        message = f"{model}@{alias} is a member of {made_of_it[0]}: add that without it first."
        raise Conflict("a member", "removed", message, code="alias_in_use")
    aliases.change(tx.conn, model, alias, None, actor=tx.actor, reason="removed")
    audit.record(tx, audit.NOBODY, "model_alias.removed", f"{model}@{alias}")


def _lock(tx: Transaction, model: str) -> None:
    if not versions.lock_name(tx.conn, model):
        model_versions.check_known(tx, model)


def demand(tx: Transaction, model: str, alias: str, wanted: Demand | None) -> AliasChange:
    """Demand this of versions before their share of an alias grows; None: nothing any more. Shares stay as they are.

    A rollback, and what a guard takes back, is not asked for it. Raises NotFound and BadRequest.
    """
    if wanted is not None:
        demands.check(tx, wanted)
    _lock(tx, model)
    now = get(tx, model, alias)
    assert now.split is not None, "an alias that is there stands for something"
    reason = f"demands {wanted.label}" if wanted else "demands nothing"
    return write(tx, model, alias, now.split, now.guard, wanted, reason)


def write(
    tx: Transaction,
    model: str,
    alias: str,
    split: Split,
    guard: Mapping[str, float] | None,
    demand: Demand | None,
    reason: str,
) -> AliasChange:
    """Write and audit one change of an alias whose model is locked."""
    made = aliases.change(tx.conn, model, alias, split, guard=guard, demand=demand, actor=tx.actor, reason=reason)
    weights = {f"v{number}": weight for number, weight in split.weights.items()}
    audit.record(tx, audit.NOBODY, "model_alias.changed", f"{model}@{alias}", weights=weights, reason=reason)
    return made
