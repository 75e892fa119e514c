"""An ensemble: members, and the rule that makes one answer of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from penstock.domain.inference_endpoints import EMBEDDINGS

DEFAULT_TIMEOUT_SECONDS: Final = 300
"""As long as a large model takes to start anew."""


class EnsembleKind(StrEnum):
    """How one answer is made of its members'."""

    ROUTE = "route"
    """Each request goes to one member, by rules."""
    FALLBACK = "fallback"
    """The first member that answers."""
    VOTE = "vote"
    """All members are asked, and most decide."""
    CASCADE = "cascade"
    """The first member whose answer is good enough, from the cheapest to the dearest."""
    BEST_OF = "best_of"
    """All members are asked, and a judge says whose answer is best."""
    COMBINE = "combine"
    """All members are asked, and a judge writes one answer of theirs; or vectors, scores or ranks are made one."""

    @property
    def gathers(self) -> bool:
        """Whether one answer may take several members': each is asked for itself, and then they are folded."""
        return self is not EnsembleKind.ROUTE

    @property
    def in_turn(self) -> bool:
        """Whether members are asked one after the other, as long as none has given the answer."""
        return self in (EnsembleKind.FALLBACK, EnsembleKind.CASCADE)

    @property
    def judged(self) -> bool:
        """Whether all members are heard before a judge reads what they said, or their numbers are made one."""
        return self in (EnsembleKind.BEST_OF, EnsembleKind.COMBINE)


class Tie(StrEnum):
    """Which of the labels wins that equally much was voted for."""

    HEAVIEST = "heaviest"
    """The one that has the heaviest member; of several the first."""
    FIRST = "first"
    """The one whose first member comes first."""
    JUDGE = "judge"
    """The one that a judge names; without a verdict as with `heaviest`."""


class Method(StrEnum):
    """How a combine without a judge makes one number of its members'."""

    MEAN = "mean"
    """Weighted; of vectors with length 1."""
    RECIPROCAL_RANK = "reciprocal_rank"
    """The weighted mean of one over the rank, so that scores of different scales go together."""


class Normalise(StrEnum):
    """What is done to a label before it is compared."""

    TRIM = "trim"
    LOWER_TRIM = "lower_trim"

    def applied(self, label: str) -> str:
        """The label as it is compared."""
        trimmed = label.strip()
        return trimmed.casefold() if self is Normalise.LOWER_TRIM else trimmed


@dataclass(frozen=True)
class Extract:
    """How a member's vote is read of its text: by one of these, or all of the text is the vote."""

    regex: str | None = None
    """Its first match: the first group if it has one."""
    json: str | None = None
    """A JSON pointer (RFC 6901) into the text, which is JSON."""
    labels: tuple[str, ...] | None = None
    """The only votes that count: a schema's enum."""
    normalise: Normalise = Normalise.TRIM


@dataclass(frozen=True)
class Accept:
    """When a cascade's answer is good enough: all that is said must hold."""

    mean_logprob_over: float | None = None
    """Of its tokens, in nats."""
    regex: str | None = None
    """It is found in the text."""
    json_schema: Mapping[str, Any] | None = None
    """The text is JSON that it allows."""


@dataclass(frozen=True)
class EnsembleMember:
    """A model that may be asked in the ensemble's place."""

    model: str
    """A model, `name@alias` or `name@v3`."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Fields that a request has there if it does not say them itself."""
    weight: int | Fraction = 1
    """Of its vote, or of its answer where a judge gives no verdict. Exact, so that a tie is one
    whatever all weights are multiplied by."""
    label: str = ""
    """What it is called among the members: its model, and for the second of the same model `model#2`."""


@dataclass(frozen=True)
class Judge:
    """A model that reads the members' answers."""

    member: EnsembleMember
    """As it is asked, behind all members."""
    prompt: str
    """With `{request}`, `{answers}` and `{count}` in the places of what it reads."""
    reads_chars: int
    """Of the request, and of all answers together: what is longer is cut."""


class ClassifiedBy(StrEnum):
    """What a classifier is asked."""

    CHAT = "chat"
    """It writes text, and names a label."""
    EMBEDDINGS = "embeddings"
    """It embeds texts: the label is that of the text that is nearest to the request."""


@dataclass(frozen=True)
class Classifier:
    """A model that says what a request is about, for the rules of a route."""

    member: EnsembleMember
    """As it is asked, before any member."""
    labels: tuple[str, ...]
    """What it may say."""
    prompt: str
    """With `{request}` and `{labels}` in the places of what it reads; empty of one that embeds."""
    reads_chars: int
    """Of the request: what is longer is cut."""
    by: ClassifiedBy = ClassifiedBy.CHAT
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of one that embeds: the texts that stand for a label, in the place of its name."""

    @property
    def embeds(self) -> bool:
        """Whether it is asked for vectors."""
        return self.by is ClassifiedBy.EMBEDDINGS

    @property
    def texts(self) -> tuple[tuple[str, str], ...]:
        """Of one that embeds: each label with each text that stands for it, in the labels' order."""
        return tuple((label, text) for label in self.labels for text in self.examples.get(label, (label,)))


@dataclass(frozen=True)
class Rule:
    """Which member is used when all conditions hold; without any it always is."""

    use: str
    when: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """For people: `prompt_tokens_over 4000 and tools true`, or `otherwise`."""
        return " and ".join(f"{name} {_said(value)}" for name, value in self.when.items()) or "otherwise"


@dataclass(frozen=True)
class EnsembleDefinition:
    """What an operator wrote, checked by itself: whether its members are there is for the registry to say."""

    name: str
    kind: EnsembleKind
    members: tuple[EnsembleMember, ...]
    rules: tuple[Rule, ...] = ()
    """Of a route. The first one whose conditions hold counts; the last one has none."""
    extract: Extract = Extract()
    """Of a vote."""
    tie: Tie = Tie.HEAVIEST
    """Of a vote."""
    min_responses: int = 1
    """Of a vote, a best_of and a combine: with fewer votes, or answers, the request has failed."""
    accept: Accept = Accept()
    """Of a cascade."""
    judge: Judge | None = None
    """Of a best_of, of a combine that has no method, and of a vote whose ties one decides."""
    method: Method | None = None
    """Of a combine that has no judge: of numbers."""
    classifier: Classifier | None = None
    """Of a route: who is asked first where a rule needs a label."""
    fails_with_member: bool = False
    """`on_error: fail`: one failed member is the request's failure; else it is passed over."""
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    """So long a waiting call waits for a member; and a batch for a worker of one, while it has none."""
    max_cost: int | None = None
    """In picounits: once the tokens of one request's answers have cost so much, nobody further is asked for it."""

    @property
    def gathers(self) -> bool:
        """Whether one answer may take several of those that are asked."""
        return self.kind.gathers or self.classifier is not None

    @property
    def in_turn(self) -> bool:
        """Whether they are asked one after the other, as what was heard says."""
        return self.kind.in_turn or self.classifier is not None

    @property
    def asked(self) -> tuple[EnsembleMember, ...]:
        """All that a request may ask: the members in their order, and behind them the judge or the classifier."""
        reader = self.judge or self.classifier
        return (*self.members, reader.member) if reader else self.members

    @property
    def first(self) -> tuple[int, ...]:
        """The places of those that are asked at once."""
        if self.classifier is not None:
            return (len(self.members),)
        return (0,) if self.kind.in_turn else tuple(range(len(self.members)))

    @property
    def patterns(self) -> Mapping[str, str]:
        """Every regular expression, by its place in what was written: a search may take long."""
        found = {f"rules[{place}].when.regex": rule.when.get("regex") for place, rule in enumerate(self.rules)}
        found |= {"extract.regex": self.extract.regex, "accept.regex": self.accept.regex}
        return {place: pattern for place, pattern in found.items() if pattern is not None}

    @property
    def looks_long(self) -> bool:
        """Whether a rule may take milliseconds: a search, or the first look for a language, which loads its model."""
        return bool(self.patterns) or any("language" in rule.when for rule in self.rules)

    @property
    def reads_logprobs(self) -> bool:
        """Whether its members must say how sure they were of their tokens."""
        return self.accept.mean_logprob_over is not None

    @property
    def ranks_all(self) -> bool:
        """Whether its members must score all documents, though the request wants the first few of them."""
        return self.method is not None

    def member(self, label: str) -> EnsembleMember:
        """The member that is called this."""
        return next(one for one in self.asked if one.label == label)


@dataclass(frozen=True)
class Ensemble:
    """One version of an ensemble: it never changes."""

    id: int
    version: int
    definition: EnsembleDefinition
    created_at: datetime
    created_by: str
    written: Mapping[str, Any] = field(default_factory=dict)
    """The definition as its operator wrote it."""

    @property
    def name(self) -> str:
        """As requests name it."""
        return self.definition.name

    @property
    def label(self) -> str:
        """Its version as people and answers say it."""
        return f"v{self.version}"

    @property
    def gathers(self) -> bool:
        """Whether one answer may take several of those that are asked."""
        return self.definition.gathers

    def chosen(self, member: EnsembleMember, *, gathered: bool = True) -> ChosenMember:
        """What is to be known of a request that goes to this member; `gathered`: for a fold."""
        return chosen(self.id, self.version, self.definition, member, gathered=gathered)


def chosen(
    id: int, version: int, definition: EnsembleDefinition, member: EnsembleMember, *, gathered: bool = True
) -> ChosenMember:
    """What is to be known of a request that goes to this member of this version.

    `gathered`: what it says is folded with what others say, if its ensemble gathers at all.
    """
    params = {**member.params, "logprobs": True} if definition.reads_logprobs else member.params
    place = definition.asked.index(member)
    return ChosenMember(
        id, definition.name, version, definition.kind, member.model, params, member.label, place,
        later=gathered and place not in definition.first,
        gathers=gathered and definition.gathers,
        classifier=definition.classifier if place == len(definition.members) else None,
        ranks_all=definition.ranks_all,
    )  # fmt: skip


@dataclass(frozen=True)
class MemberCounts:
    """What went to one member of one version: lines of batches and jobs that are kept, and calls."""

    lines: int = 0
    completed: int = 0
    failed: int = 0
    calls: int = 0
    failed_calls: int = 0


@dataclass(frozen=True, eq=False)
class ChosenMember:
    """The member that a request, or all of a slice's lines, went to; and as whose.

    One that routes a file makes one of each, which are compared by being the same: it does so for each line.
    """

    ensemble_id: int
    ensemble: str
    version: int
    kind: EnsembleKind
    model: str
    params: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    place: int = 0
    """Among the members, from 0."""
    later: bool = False
    """It is asked once others were, if at all."""
    ranks_all: bool = False
    """It scores all documents of a rerank, however few are wanted: its ensemble cuts."""
    gathers: bool = False
    """What it says is folded with what others say."""
    classifier: Classifier | None = None
    """It is this one, which is asked for a label."""

    def endpoint(self, asked: str) -> str:
        """Where it is asked what is to be answered as `asked` says."""
        return EMBEDDINGS if self.classifier is not None and self.classifier.embeds else asked

    @property
    def head(self) -> dict[str, str]:
        """What is known of it before an answer is there."""
        return {
            "ensemble": self.ensemble,
            "version": f"v{self.version}",
            "kind": self.kind.value,
            "winner": self.label,
        }

    def trace(self, outcome: str, tokens: int, seconds: float) -> dict[str, Any]:
        """What an answer says of how it was made: `outcome` is `answered`, `reused` or `refused`.

        One that is to be folded says only what its member did: who wins is for the fold to say.
        """
        member = {"model": self.label, "outcome": outcome, "tokens": tokens, "ms": round(seconds * 1_000)}
        return {**({} if self.gathers else self.head), "members": [member]}


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return " ".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, dict) else str(value)
