"""Ensembles: their rows, one a version. The latest of a name counts, unless the name was removed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from penstock.domain.accounts.audit import Actor
from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles import ensemble
from penstock.domain.ensembles.definition import read
from penstock.domain.ensembles.ensemble import ChosenMember, Ensemble, EnsembleDefinition, MemberCounts

_COLUMNS: Final = "id, version, definition, created_at, actor"
_LATEST = text(f"""
    select distinct on (name) {_COLUMNS} from ensembles
    where removed_at is null and (cast(:names as text[]) is null or name = any(cast(:names as text[])))
    order by name, version desc""")
_FIND = text(f"""
    select {_COLUMNS} from ensembles where name = :name and version = :version and removed_at is null""")
_LOCK = text("select pg_advisory_xact_lock(hashtextextended('ensembles', 0))")
_COUNT = text("select count(distinct name)::int from ensembles where removed_at is null and name <> :name")
_INSERT = text(f"""
    insert into ensembles (name, version, definition, actor)
    select :name, coalesce(max(version), 0) + 1, cast(:definition as text), :actor from ensembles where name = :name
    returning {_COLUMNS}""")
_REMOVE = text("""
    update ensembles set removed_at = clock_timestamp() where name = :name and removed_at is null""")
_LINES = text("""
    -- Of a later member those that it was asked.
    select member, place, sum(lines)::bigint as lines, sum(completed)::bigint as completed,
           sum(failed)::bigint as failed
    from slices where ensemble = :ensemble and member is not null and (fold is null or state <> 'waiting')
      and not (state = 'dropped' and released_at is null and completed + failed = 0 and fold is not null)
    group by member, place""")
_CALLS = text("select member, calls, failed from ensemble_calls where ensemble = :ensemble")
_AGREEMENT = text("""
    select (sum(agreement) / nullif(sum(agreed), 0))::float8 from slices
    where ensemble = :ensemble and member is null""")
_ADD_CALLS = text("""
    insert into ensemble_calls as c (ensemble, member, calls, failed)
    select * from unnest(cast(:ensembles as bigint[]), cast(:members as text[]),
                         cast(:calls as bigint[]), cast(:failed as bigint[]))
    on conflict (ensemble, member) do update set calls = c.calls + excluded.calls, failed = c.failed + excluded.failed
    """)


def latest(conn: Connection, names: Collection[str] | None = None) -> dict[str, Ensemble]:
    """Ensembles (those of these names) by name, each in the version that counts now."""
    found = {}
    for row in conn.execute(_LATEST, {"names": None if names is None else list(names)}):
        with suppress(BadRequest):  # of a newer release: to this one it is not there
            one = _ensemble(row)
            found[one.name] = one
    return found


def find(conn: Connection, name: str, version: int) -> Ensemble | None:
    """One version of a name that was not removed."""
    row = conn.execute(_FIND, {"name": name, "version": version}).first()
    return _ensemble(row) if row else None


def lock(conn: Connection) -> None:
    """Let nobody else add or remove one meanwhile."""
    conn.execute(_LOCK)


def others(conn: Connection, name: str) -> int:
    """How many other names there are."""
    found: int = conn.execute(_COUNT, {"name": name}).scalar_one()
    return found


def insert(conn: Connection, name: str, definition: Mapping[str, Any], actor: Actor) -> Ensemble:
    """Add the next version of a name; the caller has locked."""
    values = {"name": name, "definition": json.dumps(definition), "actor": actor.id}
    return _ensemble(conn.execute(_INSERT, values).one())


def remove(conn: Connection, name: str) -> bool:
    """Let a name stand for nothing; False if it did not stand for anything."""
    return conn.execute(_REMOVE, {"name": name}).rowcount > 0


def with_member(conn: Connection, model: str) -> list[str]:
    """Ensembles that have a member of just this name (`chat@v2`, say), by the versions that count now.

    What is planned for an older version has slices of its own.
    """
    found = latest(conn).values()
    return sorted(one.name for one in found if any(member.model == model for member in one.definition.asked))


def counts(conn: Connection, one: Ensemble) -> dict[str, MemberCounts]:
    """What went to each member of this version, those that nothing went to included."""
    found = {member.label: MemberCounts() for member in one.definition.asked}
    calls = {row.member: (row.calls, row.failed) for row in conn.execute(_CALLS, {"ensemble": one.id})}
    for row in conn.execute(_LINES, {"ensemble": one.id}):
        label = row.member if row.place is None else one.definition.asked[row.place].label
        before = found[label]
        found[label] = MemberCounts(
            before.lines + row.lines, before.completed + row.completed, before.failed + row.failed
        )
    for member, (asked, failed) in calls.items():
        found[member] = replace(found[member], calls=asked, failed_calls=failed)
    return found


def agreement(conn: Connection, one: Ensemble) -> float | None:
    """How much the members of a vote agree on a line, on average; None where nothing was voted on."""
    found: float | None = conn.execute(_AGREEMENT, {"ensemble": one.id}).scalar_one()
    return found


def add_calls(conn: Connection, counted: Mapping[tuple[int, str], tuple[int, int]]) -> None:
    """Add calls, and failed ones, by version and member; in one order, so that two processes don't wait in a circle."""
    keys = sorted(counted)
    values = {
        "ensembles": [ensemble for ensemble, _ in keys],
        "members": [member for _, member in keys],
        "calls": [counted[key][0] for key in keys],
        "failed": [counted[key][1] for key in keys],
    }
    conn.execute(_ADD_CALLS, values)


def chosen(id: int, version: int, definition: str, member: str, place: int | None, *, gathered: bool) -> ChosenMember:
    """The member that a slice's lines went to; one of before releases that know places has the model alone."""
    found = _read(definition)
    asked = found.member(member) if place is None else found.asked[place]
    return ensemble.chosen(id, version, found, asked, gathered=gathered)


def definition(written: str) -> EnsembleDefinition:
    """A version's definition, as its row has it."""
    return _read(written)


def _ensemble(row: Row[Any]) -> Ensemble:
    definition = row.definition
    return Ensemble(row.id, row.version, _read(definition), row.created_at, row.actor, _written(definition))


@lru_cache(maxsize=1_000)
def _read(definition: str) -> EnsembleDefinition:
    """What was checked when it was added; API processes read the same texts each second."""
    return read(_written(definition))


@lru_cache(maxsize=1_000)
def _written(definition: str) -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads(definition)
    return found
