"""What creates of evals, runs and comparisons take."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from penstock.api.http.body import Asked, Text
from penstock.api.schemas.terms import LaneName, Metadata
from penstock.domain.evals.scorer import DEFAULT_SIMILARITY, WHOLE, Normalisation, Scorer, ScorerKind

Name = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
FileId = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
Pattern = Annotated[
    Text,
    StringConstraints(min_length=1, max_length=1_000),
]
ScorerName = Annotated[Text, StringConstraints(min_length=1, max_length=64)]
_REGEX: Final = "A regular expression (Python's syntax), searched for anywhere in the answer; each search has 0.1 s."


class ExactScorer(Asked):
    """1 if the answer is what was expected, else 0."""

    type: Literal["exact"]
    name: ScorerName
    normalise: list[Literal["trim", "spaces", "lower", "punctuation"]] = Field(
        ["trim"],
        description="Done to both sides: white space at the ends goes, a run of it is one space, case is ignored, "
        "punctuation goes.",
        max_length=4,
    )
    extract: Pattern | None = Field(
        None, description=f"What is compared: the first group, or all, of this. {_REGEX} No match is 0."
    )

    def scorer(self) -> Scorer:
        """As the service takes it."""
        steps = tuple(one for one in Normalisation if str(one) in self.normalise)
        return Scorer(self.name, ScorerKind.EXACT, normalise=steps, extract=self.extract)


class RegexScorer(Asked):
    """1 if the pattern is found in the answer, else 0."""

    type: Literal["regex"]
    name: ScorerName
    pattern: Pattern = Field(description=_REGEX)

    def scorer(self) -> Scorer:
        """As the service takes it."""
        return Scorer(self.name, ScorerKind.REGEX, pattern=self.pattern)


class JsonSchemaScorer(Asked):
    """1 if the answer is JSON that the schema allows, else 0."""

    type: Literal["json_schema"]
    name: ScorerName
    schema_: dict[str, Any] = Field(
        alias="schema",
        description="JSON Schema, draft 2020-12, up to 64 KiB; `$ref` only to its own parts, no `patternProperties`.",
    )

    def scorer(self) -> Scorer:
        """As the service takes it."""
        return Scorer(self.name, ScorerKind.JSON_SCHEMA, schema=self.schema_)


class SimilarityScorer(Asked):
    """The cosine of the embeddings of the answer and of what was expected, which a batch of its own asks for."""

    type: Literal["similarity"]
    name: ScorerName
    model: Name = Field(description="A served model with `/v1/embeddings`.")
    pass_threshold: float = Field(DEFAULT_SIMILARITY, ge=-1, le=1, description="From this on a line has passed.")

    def scorer(self) -> Scorer:
        """As the service takes it."""
        milli = round(self.pass_threshold * WHOLE)
        return Scorer(self.name, ScorerKind.SIMILARITY, model=self.model, threshold_milli=milli)


AnyScorer = Annotated[
    ExactScorer | RegexScorer | JsonSchemaScorer | SimilarityScorer,
    Field(discriminator="type"),
]


class CreateEval(Asked):
    """What answers are measured by. It is never changed, so that its runs can be compared."""

    name: Name = Field(description="For people.")
    scorers: list[AnyScorer] = Field(description="Each with a name of its own.", min_length=1, max_length=100)
    input_file_id: FileId | None = Field(
        None,
        description="What a run of a model asks: a batch's file. Left out, only batches that have ended are scored. "
        "A line may say what it expects in `expected`, beside its `custom_id`.",
    )
    endpoint: Text | None = Field(
        None, description="What its lines ask; `/v1/chat/completions` unless told. Only with `input_file_id`."
    )
    reference_file_id: FileId | None = Field(
        None,
        description='What is expected: JSONL, `{"custom_id": …, "expected": …}` a line, in any order; a file of any '
        "purpose. `expected` is a text, a list of texts of which one must come, or any JSON. Left out, each line of "
        "the batch's own input says it.",
    )
    metadata: Metadata | None = Field(None, description="Up to 16 pairs of your own.")


class CreateRun(Asked):
    """Answers to be scored: of a model that is asked now, or of a batch that has ended."""

    name: Annotated[Text, StringConstraints(max_length=200)] = Field("", description="For people.")
    model: Name | None = Field(None, description="What the eval's lines ask, whatever model they name.")
    batch_id: FileId | None = Field(
        None, description="A batch or job of yours that has ended: it is scored as it is, and nothing is asked."
    )
    set: dict[str, Any] | None = Field(
        None, description='Merged shallowly into each body, as in a retry: `{"temperature": 0}`.'
    )
    lane: LaneName = Field("standard", description="How urgent its batches are.")
    completion_window: Text = Field("24h", description="When its batch must be done: `<n>m`, `<n>h` or `<n>d`.")
    metadata: Metadata | None = Field(None, description="Up to 16 pairs of your own.")


class CreateComparison(Asked):
    """Two completed runs of the eval."""

    baseline_run_id: FileId
    candidate_run_id: FileId


BODIES: Final = (CreateEval, CreateRun, CreateComparison)
