"""Folds: one answer made of several members', as the verdict says. The same for a line of a batch and for a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from penstock.domain.ensembles import verdict
from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleKind
from penstock.domain.ensembles.verdict import EnsembleVerdict, Heard
from penstock.formats.answers.answer_text import answer_text
from penstock.formats.answers.call_answer import saying
from penstock.formats.answers.folded_answer import summed_usage, without_logprobs
from penstock.formats.answers.mixed_answer import mixed_answer
from penstock.formats.answers.written_answer import mended
from penstock.formats.routed_request import top_n
from penstock.service.ensembles import judging
from penstock.service.ensembles.hearing import FAILED, Hearing
from penstock.service.ensembles.routing import Router

QUORUM: Final = "ensemble_quorum"
MISMATCH: Final = "ensemble_mismatch"


@dataclass(frozen=True, slots=True)
class MemberAnswer:
    """What came of one member for one request."""

    outcome: str
    """`answered`, `reused`, `refused` by its engine, `failed` (no engine answered), `unavailable` (it was not asked,
    since no worker of it was there) or `cancelled` (it could not change the result any more)."""
    body: bytes | None = None
    """Its answer, if it is one."""
    code: str | None = None
    """Why it is none."""
    tokens: int = 0
    ms: int = 0
    refused_status: int | None = None
    """The HTTP status of its engine's refusal."""
    cost: int = 0
    """Of its tokens, in picounits; counted only where the ensemble has a `max_cost`."""


@dataclass(frozen=True, slots=True)
class Folded:
    """What became of a request: an answer, or an error; or, before that, whom to ask."""

    verdict: EnsembleVerdict
    body: bytes | None = None
    error: tuple[str, str] | None = None
    """Code and message."""


class Fold:
    """The fold of one version of an ensemble, for one file or one call."""

    def __init__(self, definition: EnsembleDefinition, version: int, bytes_per_token: float = 4.0) -> None:
        self._definition = definition
        self._version = version
        self._hearing = Hearing(definition)
        self._router = Router(bytes_per_token)

    def heard(self, one: MemberAnswer, place: int, request: bytes = b"") -> Heard:
        """What an answer says of the member at this place; keep it where `fold` is called again with the same.

        `request` is the body that a route's rules read once its classifier has answered, or failed; raise Unroutable
        where one of their patterns takes too long.
        """
        said = self._hearing.heard(one.body, place) if one.body is not None else FAILED
        if self._definition.classifier is None or place < len(self._definition.members):
            return said
        rule = self._definition.rules[self._router.labelled(self._definition, request, said.label)]
        return replace(said, leads=self._definition.asked.index(self._definition.member(rule.use)))

    def question(
        self,
        endpoint: str,
        body: bytes,
        answers: Mapping[int, MemberAnswer],
        heard: Mapping[int, Heard] | None = None,
    ) -> bytes:
        """What the judge is asked of a request's body, once all members have been heard."""
        said = self._said(answers, heard)
        texts = [answer_text(answers[place].body or b"") or "" for place in verdict.readable(self._definition, said)]
        return judging.question(self._definition, endpoint, body, texts)

    def fold(
        self,
        answers: Mapping[int, MemberAnswer],
        heard: Mapping[int, Heard] | None = None,
        *,
        keeps_logprobs: bool = False,
        endpoint: str = "",
        request: bytes = b"",
    ) -> Folded:
        """What is to be said by what came of members, by their places.

        `keeps_logprobs`: the request asked for them, not only the ensemble. `endpoint` says where numbers are.
        `request` is the body that was asked: the rules of a route read it, and it says how much of a ranking is wanted.
        """
        said = self._said(answers, heard, request)
        found = verdict.judge(self._definition, said, sum(one.cost for one in answers.values()))
        if not found.decided:
            return Folded(found)
        if found.winner is None:
            return Folded(found, error=self._quorum(found, answers, said))
        bodies = {place: mended(one.body) for place, one in sorted(answers.items()) if one.body is not None}
        body = bodies[found.winner]
        if (method := self._definition.method) is not None:
            weights = [self._definition.members[place].weight for place in bodies]
            try:
                body = mixed_answer(endpoint, method, weights, list(bodies.values()), top_n(request))
            except ValueError as error:
                name = self._definition.name
                return Folded(found, error=(MISMATCH, f"Answers of the ensemble {name!r} don't go together: {error}."))
        fields: dict[str, Any] = {"penstock": self.trace(found, answers, said)}
        usage = summed_usage(bodies.values(), endpoint)
        if usage is not None:
            fields["usage"] = usage
        if self._definition.reads_logprobs and not keeps_logprobs:
            body = without_logprobs(body)
        return Folded(found, body=saying(body, fields))

    def _said(
        self, answers: Mapping[int, MemberAnswer], heard: Mapping[int, Heard] | None, request: bytes = b""
    ) -> dict[int, Heard]:
        known = heard or {}
        return {place: known.get(place) or self.heard(one, place, request) for place, one in answers.items()}

    def trace(
        self, found: EnsembleVerdict, answers: Mapping[int, MemberAnswer], heard: Mapping[int, Heard]
    ) -> dict[str, Any]:
        """How the answer was made, without its content: the members that were asked, in their order."""
        assert found.winner is not None, "there is an answer"
        members = self._definition.asked
        told: dict[str, Any] = {
            "ensemble": self._definition.name,
            "version": f"v{self._version}",
            "kind": self._definition.kind.value,
        }
        if self._definition.method is None:
            told["winner"] = members[found.winner].label
        if found.agreement is not None:
            told["agreement"] = round(found.agreement, 4)
        if found.degraded:
            told["degraded"] = True
        if found.stopped:
            told["stopped"] = "max_cost"
        each = {place: _told(members[place].label, one, heard[place]) for place, one in sorted(answers.items())}
        reader = each.pop(len(self._definition.members), None)
        told["members"] = list(each.values())
        who = "judge" if self._definition.classifier is None else "classifier"
        return told if reader is None else told | {who: reader}

    def _quorum(
        self, found: EnsembleVerdict, answers: Mapping[int, MemberAnswer], heard: Mapping[int, Heard]
    ) -> tuple[str, str]:
        """The error of a request for which too few members answered, with what became of those that did not."""
        if self._definition.classifier is not None:
            return QUORUM, self._unrouted(answers, heard)
        members, votes = self._definition.asked, self._definition.kind is EnsembleKind.VOTE
        why = [
            f"{members[place].label}: {one.code or ('no vote' if heard[place].answered else one.outcome)}"
            for place, one in sorted(answers.items())
            if not heard[place].answered or (votes and heard[place].vote is None)
        ]
        fails = self._definition.fails_with_member and any(not one.answered for one in heard.values())
        if not fails and heard.keys() - range(len(self._definition.members)):
            return QUORUM, f"The judge of the ensemble {self._definition.name!r} gave no verdict."
        what = "A member" if fails else "Too few members"
        verb = "did not answer" if fails else "answered before max_cost stopped it" if found.stopped else "answered"
        return QUORUM, f"{what} of the ensemble {self._definition.name!r} {verb} ({'; '.join(why)})."

    def _unrouted(self, answers: Mapping[int, MemberAnswer], heard: Mapping[int, Heard]) -> str:
        """Of a route: its classifier failed or said no label, where that is not passed over; or the member failed."""
        name, place = self._definition.name, len(self._definition.members)
        if (chosen := heard[place].leads) is not None and chosen in heard:
            place = chosen
        label, one = self._definition.asked[place].label, answers[place]
        if heard[place].answered:
            return f"The classifier of the ensemble {name!r} named none of its labels."
        return f"A member of the ensemble {name!r} did not answer ({label}: {one.code or one.outcome})."


def _told(label: str, one: MemberAnswer, heard: Heard) -> dict[str, Any]:
    told: dict[str, Any] = {"model": label, "outcome": one.outcome, "tokens": one.tokens, "ms": one.ms}
    if heard.vote is not None:
        told["vote"] = heard.vote[:200]
    if heard.choice is not None:
        told["choice"] = heard.choice
    if heard.label is not None:
        told["label"] = heard.label
    if not heard.accepted:
        told["accepted"] = False
    if one.code is not None:
        told["code"] = one.code
    return told
