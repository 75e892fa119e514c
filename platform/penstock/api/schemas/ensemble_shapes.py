"""What ensembles look like on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from penstock.api.schemas.shapes import unix
from penstock.domain.ensembles import escalation
from penstock.domain.ensembles.ensemble import Ensemble, EnsembleKind, EnsembleMember, MemberCounts


class MemberShape(BaseModel):
    """A model that may be asked in the ensemble's place, or that reads what those said."""

    label: str = Field(
        description="What it is called among the members: its model, or `model#2` for its second time; `judge`, "
        "`classifier`."
    )
    model: str
    params: dict[str, Any] = Field(description="Fields that a request has there if it does not say them itself.")
    weight: float | None = Field(
        description="Of its vote, or of its answer where a judge gives no verdict; null in other kinds, and of a judge."
    )
    lines: int | None = Field(
        description="Of batches and jobs that are kept; null in lists, as are the next four. A line that several "
        "members are asked counts at each."
    )
    completed_lines: int | None
    failed_lines: int | None
    calls: int | None = Field(description="Waiting calls, as of some seconds ago.")
    failed_calls: int | None = Field(description="Those of them that were answered with a 4xx or 5xx.")
    escalation_rate: float | None = Field(
        description="What part of the lines and calls that the first member had came to this one: of later members of "
        "a `fallback` or `cascade`, of a judge that decides a vote's ties (so many there were), and of one that "
        "`max_cost` may spare. Null of others, in lists, and while the first had none."
    )


class EnsembleRule(BaseModel):
    """Which member is used when all conditions hold."""

    when: dict[str, Any] | None = Field(description="Null in the last one: it always holds.")
    use: str


class EnsembleShape(BaseModel):
    """One version of an ensemble: it never changes."""

    id: str = Field(description="As `model` of a request names it.")
    object: Literal["ensemble"] = "ensemble"
    version: str = Field(pattern="^v[1-9][0-9]*$")
    kind: EnsembleKind
    members: list[MemberShape]
    judge: MemberShape | None = Field(
        description="Of `best_of`, `combine` and a `vote` with `tie` `judge`: who reads the members' answers. Its "
        "prompt stands in `definition`, if one was written."
    )
    classifier: MemberShape | None = Field(
        description="Of a `route`, if a rule reads a label: who says it. Its labels, and what it is asked, stand in "
        "`definition`."
    )
    rules: list[EnsembleRule] = Field(
        description="Of a `route`: the first one that holds counts; the last one always does."
    )
    definition: dict[str, Any] = Field(
        description="As it was written: what its kind alone has (`extract`, `tie`, `accept` and so on) stands here."
    )
    agreement: float | None = Field(
        description="Of a `vote`: what part of the votes' weight is for the label that wins, on average over lines of "
        "batches and jobs that are kept; null where nothing was voted on, and in lists."
    )
    created_at: int
    created_by: str = Field(description="The key's id, or `cli`.")


class EnsembleList(BaseModel):
    """All ensembles, each in the version that counts now."""

    object: Literal["list"] = "list"
    data: list[EnsembleShape]


class DeletedEnsemble(BaseModel):
    """Confirms that a name stands for nothing."""

    id: str
    object: Literal["ensemble"] = "ensemble"
    deleted: bool = True


def ensemble(
    one: Ensemble, counts: Mapping[str, MemberCounts] | None = None, agreement: float | None = None
) -> EnsembleShape:
    """A version's shape."""
    found = one.definition
    rates = escalation.rates(found, counts) if counts else {}
    weighs = found.kind is EnsembleKind.VOTE or found.kind.judged

    def shape(member: EnsembleMember, *, weighs: bool) -> MemberShape:
        return _member(member, weighs, counts[member.label] if counts else None, rates.get(member.label))

    return EnsembleShape(
        id=one.name,
        version=one.label,
        kind=found.kind,
        members=[shape(member, weighs=weighs) for member in found.members],
        judge=shape(found.judge.member, weighs=False) if found.judge else None,
        classifier=shape(found.classifier.member, weighs=False) if found.classifier else None,
        rules=[EnsembleRule(when=dict(rule.when) or None, use=rule.use) for rule in found.rules],
        definition=dict(one.written),
        agreement=agreement,
        created_at=unix(one.created_at),
        created_by=one.created_by,
    )


def _member(one: EnsembleMember, weighs: bool, counts: MemberCounts | None, rate: float | None) -> MemberShape:
    return MemberShape(
        label=one.label,
        model=one.model,
        params=dict(one.params),
        weight=float(one.weight) if weighs else None,
        lines=counts and counts.lines,
        completed_lines=counts and counts.completed,
        failed_lines=counts and counts.failed,
        calls=counts and counts.calls,
        failed_calls=counts and counts.failed_calls,
        escalation_rate=rate,
    )
