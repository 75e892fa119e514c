"""Scorers: what each says of an answer, and that no pattern or schema of a stranger takes more time than it has."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from penstock.domain.api_errors import BadRequest
from penstock.domain.evals.scorer import Normalisation, Scorer, ScorerKind
from penstock.formats import references
from penstock.formats.answers.answer_text import answer_text, embeddings
from penstock.scoring import bounded_regex, bounded_schema, scorers
from penstock.scoring.bounded_regex import BoundedRegex, PatternTooSlow
from penstock.scoring.bounded_schema import BoundedSchema, TooComplex
from penstock.scoring.score import Score
from penstock.scoring.tally import ScoreTally

EVERY = tuple(Normalisation)
SLOW = "^(a|aa)+$"


def exact(answer: str, expected: Any, *normalise: Normalisation, extract: str | None = None) -> int | None:
    """The score in thousandths."""
    scorer = Scorer("one", ScorerKind.EXACT, normalise=normalise or (Normalisation.TRIM,), extract=extract)
    return scorers.measure(scorer)(answer, expected).milli


def test_exact_takes_what_is_expected_and_nothing_else() -> None:
    assert exact(" refund\n", "refund") == 1_000
    assert exact("Refund", "refund") == 0
    assert exact("a  b", "a b") == 0
    assert exact("refund", scorers.NOTHING) is None
    assert exact("", "") == 1_000


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(" The  ANSWER: “42”! ", "the answer 42"), ("Straße", "STRASSE"), ("¿Qué?", "qué"), ("a\tb", "A b")],
)
def test_normalised_texts_are_equal_however_they_were_written(answer: str, expected: str) -> None:
    assert exact(answer, expected, *EVERY) == 1_000
    assert exact(answer, expected) == 0


def test_one_of_several_expectations_is_enough_and_json_is_compared_as_json() -> None:
    assert exact("yes", ["Yes", "yes"]) == 1_000
    assert exact("no", ["Yes", "yes"]) == 0
    assert exact('{"b": 1, "a": [2]}', {"a": [2], "b": 1}) == 1_000
    assert exact('{"b": 1}', {"b": 2}) == 0
    assert exact("42", 42) == 1_000
    assert exact("forty-two", 42) == 0
    assert exact("null", None) == 1_000
    assert exact("[" * 100_000, 42) == 0


def test_what_a_pattern_extracts_is_compared() -> None:
    assert exact("I think so.\nAnswer: blue", "blue", extract=r"Answer: (\w+)") == 1_000
    assert exact("blue", "blue", extract="[a-z]+") == 1_000
    assert exact("I don't know", "blue", extract=r"Answer: (\w+)") == 0


def test_a_pattern_that_needs_more_time_than_there_is_is_given_up_for_the_line_and_for_no_other() -> None:
    slow = BoundedRegex(SLOW)
    text = "a" * 80 + "!"
    for timeouts in (0, bounded_regex.MOST_TIMEOUTS):
        slow._timeouts = timeouts
        with pytest.raises(PatternTooSlow):
            slow.find(text)
        assert slow.find("a") == "a"
        assert slow.find("b") is None
    score = scorers.measure(Scorer("slow", ScorerKind.REGEX, pattern=SLOW))(text, scorers.NOTHING)
    assert score == Score(None, False, "the pattern took too long")


@pytest.mark.parametrize(
    "scorer",
    [
        Scorer("x", ScorerKind.REGEX, pattern="("),
        Scorer("x", ScorerKind.REGEX, pattern="a" * 1_001),
        Scorer("x", ScorerKind.REGEX, pattern="(?:a{1000}){1000}"),
        Scorer("x", ScorerKind.EXACT, extract="[z-a]"),
        Scorer("x", ScorerKind.JSON_SCHEMA, schema={"type": "nothing"}),
        Scorer("x", ScorerKind.JSON_SCHEMA, schema={"pattern": "("}),
        Scorer("x", ScorerKind.JSON_SCHEMA, schema={"$ref": "http://169.254.169.254/latest"}),
        Scorer("x", ScorerKind.JSON_SCHEMA, schema={"properties": {"a": {"$dynamicRef": "#x"}}}),
        Scorer("x", ScorerKind.JSON_SCHEMA, schema={"patternProperties": {"a*": {}}}),
        Scorer("x", ScorerKind.JSON_SCHEMA, schema={"title": "x" * 70_000}),
        Scorer("x", ScorerKind.JSON_SCHEMA, schema={"title": "\0"}),
    ],
)
def test_what_can_not_be_put_to_work_is_refused_when_it_is_made(scorer: Scorer) -> None:
    with pytest.raises(BadRequest) as refused:
        scorers.check([scorer])
    assert refused.value.param is not None
    assert refused.value.param.startswith("scorers[0]")


def test_scorers_have_names_of_their_own_and_one_of_them_embeds_at_most() -> None:
    one, other = (Scorer(name, ScorerKind.SIMILARITY, model="m") for name in "ab")
    scorers.check([one])
    with pytest.raises(BadRequest, match="one scorer of the type 'similarity'"):
        scorers.check([one, other])
    with pytest.raises(BadRequest, match="name of its own"):
        scorers.check([one, Scorer("a", ScorerKind.EXACT)])


REPLY = {
    "type": "object",
    "properties": {"label": {"$ref": "#/$defs/label"}, "tags": {"uniqueItems": True}},
    "required": ["label"],
    "$defs": {"label": {"enum": ["good", "bad"]}},
}


def test_a_schema_says_what_is_wrong_and_where() -> None:
    schema = BoundedSchema(REPLY)
    assert schema.fault('{"label": "good", "tags": [1, 2]}') is None
    assert schema.fault("good") == "it is no JSON"
    assert "at label" in (schema.fault('{"label": "odd"}') or "")
    assert schema.fault('{"label": "good", "tags": [{"a": 1}, {"a": 1}]}') == "it has an element twice at tags"
    assert "required" in (schema.fault("{}") or "")
    assert BoundedSchema({"pattern": "^a+$"}).fault('"aaa"') is None
    assert BoundedSchema({"pattern": "^a+$"}).fault('"b"') is not None


def test_references_to_references_end_after_so_many_steps() -> None:
    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)} | {"d60": {}}
    with pytest.raises(TooComplex):
        BoundedSchema({"$defs": doubling, "$ref": "#/$defs/d0"}).fault("1")
    with pytest.raises(TooComplex):
        BoundedSchema({"$ref": "#"}).fault("1")
    with pytest.raises(TooComplex):
        BoundedSchema({}).fault("[" * 100_000)


def test_a_schema_that_explodes_too_often_has_fewer_steps_and_is_still_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_schema, "MOST_STEPS", 50)
    monkeypatch.setattr(bounded_schema, "LATER_STEPS", 20)
    schema = BoundedSchema({"items": {"type": "integer"}})
    many = json.dumps([1] * 100)
    for _ in range(bounded_schema.MOST_EXPLOSIONS):
        assert schema.fault("[1]") is None
        with pytest.raises(TooComplex):
            schema.fault(many)
    assert schema.fault("[1]") is None
    with pytest.raises(TooComplex):
        schema.fault(json.dumps([1] * 30))


def test_a_reference_to_what_is_not_there_is_told_when_the_schema_is_read() -> None:
    for reference in ("#/definitions/no", "#nowhere", "#/$defs/~2"):
        with pytest.raises(BadRequest, match="refers to what is not there"):
            BoundedSchema({"allOf": [{"$ref": reference}]})
    assert BoundedSchema({"$defs": {"a b/": {"type": "null"}}, "$ref": "#/$defs/a%20b~1"}).fault("null") is None


def test_nearness_is_the_cosine_in_thousandths() -> None:
    scorer = Scorer("near", ScorerKind.SIMILARITY, model="m", threshold_milli=800)
    assert scorers.near(scorer, [1.0, 0.0], [2.0, 0.0]) == Score(1_000, True, None)
    assert scorers.near(scorer, [1.0, 0.0], [0.0, 1.0]).milli == 0
    assert scorers.near(scorer, [1.0, 0.0], [-1.0, 0.0]).milli == -1_000
    assert scorers.near(scorer, [3.0, 4.0], [4.0, 3.0]) == Score(960, True, None)
    assert scorers.near(scorer, [0.0], [1.0]).milli is None
    assert scorers.near(scorer, [1.0], [1.0, 1.0]).milli is None
    assert scorers.near(scorer, [1e200, 1e200], [1e200, 1e200]).milli is None


def test_a_scorer_is_the_same_after_it_was_kept_in_a_row() -> None:
    for one in (
        Scorer("a", ScorerKind.EXACT, normalise=(Normalisation.LOWER,), extract="x"),
        Scorer("b", ScorerKind.REGEX, pattern="x"),
        Scorer("c", ScorerKind.JSON_SCHEMA, schema={"type": "object"}),
        Scorer("d", ScorerKind.SIMILARITY, model="m", threshold_milli=700),
    ):
        assert Scorer.of_json(json.loads(json.dumps(one.as_json()))) == one


def test_a_tally_counts_what_passed_failed_and_could_not_be_scored() -> None:
    tally = ScoreTally(Scorer("a", ScorerKind.EXACT))
    assert tally.as_json()["mean"] is None
    for score in (Score(1_000, True), Score(0), Score(1_000, True), Score(None, False, "why")):
        tally.add(score)
    found = tally.as_json()
    assert (found["lines"], found["passed"], found["failed"], found["errors"]) == (3, 2, 1, 1)
    assert found["mean"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["low"] == pytest.approx(0.2077, abs=1e-3), "Wilson, 2 of 3"


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_the_text_of_an_answer_is_found_whatever_endpoint_wrote_it() -> None:
    assert answer_text(body(choices=[{"message": {"content": "hi"}}])) == "hi"
    assert answer_text(body(choices=[{"message": {"content": None}}])) == ""
    assert answer_text(body(choices=[{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}])) == "ab"
    assert answer_text(body(choices=[{"text": "done"}])) == "done"
    parts = [{"type": "output_text", "text": "one"}, {"type": "refusal"}]
    assert answer_text(body(output=[{"type": "reasoning"}, {"type": "message", "content": parts}])) == "one"
    assert answer_text(body(data=[])) is None
    assert answer_text(b"no json") is None
    assert answer_text(b"[" * 100_000) is None
    assert answer_text(b'{"choices": [{"text": "\\ud800!"}]}') == "?!"


def test_embeddings_come_in_the_order_of_their_texts() -> None:
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1]}]
    assert embeddings(body(data=data)) == [[1.0], [2.0]]
    assert embeddings(body(data=[{"index": 0, "embedding": "AAAA"}])) is None


def test_references_say_what_is_wrong_with_a_line() -> None:
    assert references.read(b'{"custom_id": "a", "expected": {"b": 1}, "more": 2}') == ("a", b'{"b": 1}')
    assert references.read(b'{"custom_id": "a", "expected": null}') == ("a", b"null")
    for line, why in (
        (b"[]", "no JSON object"),
        (b'{"expected": 1}', "no custom_id"),
        (b'{"custom_id": 5, "expected": 1}', "no custom_id"),
        (b'{"custom_id": "a"}', "no 'expected'"),
        (b'{"custom_id": "a", "expected": 1e999}', "no JSON that can be read"),
        (b'{"custom_id": "a", "expected": "\\ud800"}', "no JSON object"),
        (b"\xff", "no JSON object"),
    ):
        with pytest.raises(ValueError, match=why):
            references.read(line)
    assert references.expected_in(b'{"custom_id": "a", "body": {}}') == b""
    assert references.expected_in(b'{"custom_id": "a", "expected": "x"}') == b'"x"'


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"multipleOf": 0.1}, "1" + "0" * 400),
        ({"multipleOf": 0.1}, "NaN"),
        ({"multipleOf": 1e-300}, "1e308"),
        ({"additionalProperties": {"type": "string"}}, '{"\\ud800": 1}'),
        ({"const": "\ud800"}, '"\\udc00"'),
        ({"$ref": "#"}, "1"),
        ({"uniqueItems": True, "maxItems": 0}, "[" * 900 + "]" * 900),
    ],
)
def test_no_schema_and_no_answer_breaks_a_run(schema: dict[str, Any], answer: str) -> None:
    scorer = Scorer("one", ScorerKind.JSON_SCHEMA, schema=schema)
    score = scorers.measure(scorer)(answer, scorers.NOTHING)
    assert (score.milli or 0, score.passed) == (0, False)
    assert (score.reason or "").encode()


@pytest.mark.parametrize("expected", [b"1" + b"0" * 5_000, b"[" * 900 + b"]" * 900, b'{"a":' * 900 + b"1" + b"}" * 900])
def test_an_expectation_is_refused_or_can_be_compared(expected: bytes) -> None:
    try:
        _, found = references.read(b'{"custom_id":"a","expected":' + expected + b"}")
    except ValueError:
        return
    value = msgspec.json.decode(found)
    for answer in ("1", found.decode()):
        score = scorers.measure(Scorer("one", ScorerKind.EXACT))(answer, value)
        assert score.milli in (0, 1_000)


def test_a_schema_whose_steps_can_not_be_counted_is_refused() -> None:
    twice = {f"d{n}": {"dependentSchemas": {k: {"$ref": f"#/$defs/d{n + 1}"} for k in "ab"}} for n in range(40)}
    with pytest.raises(BadRequest, match="dependentSchemas"):
        BoundedSchema({"unevaluatedProperties": False, "$ref": "#/$defs/d0", "$defs": twice | {"d40": True}})


def test_a_schema_that_could_not_be_shown_again_is_refused() -> None:
    deep: Any = {"type": "string"}
    for _ in range(60):
        deep = {"properties": {"a": deep}}
    with pytest.raises(BadRequest, match="too deep: 100 levels"):
        BoundedSchema(deep)
    with pytest.raises(BadRequest, match="too deep"):
        BoundedSchema({"const": json.loads("[" * 900 + "]" * 900)})
    assert BoundedSchema({"const": [[1]]}).fault("[[1]]") is None
