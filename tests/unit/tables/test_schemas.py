"""A schema says which columns there will be, and refuses answers with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.tables import answer_schema, time_limit
from penstock.cli.tables.answer_schema import AnswerMismatch, AnswerSchema, load_schema
from penstock.cli.tables.column import ColumnKind
from penstock.stack.problem import Problem
from penstock_worker.engine.echo.schema_answers import fitting

MOOD = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad"]},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "share": {"type": ["number", "null"]},
        "sure": {"type": "boolean"},
        "words": {"type": "array", "items": {"$ref": "#/$defs/word"}, "minItems": 2},
    },
    "required": ["mood", "score"],
    "$defs": {"word": {"type": "string", "maxLength": 20}},
}
MODEL = """
from __future__ import annotations
from enum import Enum
from pydantic import BaseModel, Field

class Kind(Enum):
    GOOD = "good"
    BAD = "bad"

class Inner(BaseModel):
    a: int

class Mood(BaseModel):
    kind: Kind
    score: int = Field(ge=1, le=5)
    note: str | None = None
    inner: Inner
"""


def of(folder: Path, schema: Any) -> AnswerSchema:
    """The schema, from a file."""
    file = folder / "s.json"
    file.write_text(json.dumps(schema))
    return load_schema(str(file))


def of_model(folder: Path) -> AnswerSchema:
    """The schema of a pydantic class in a file."""
    (folder / "moods_of_a_test.py").write_text(MODEL)
    return load_schema(f"{folder}/moods_of_a_test.py:Mood")


def test_each_property_is_a_column_of_its_kind(tmp_path: Path) -> None:
    assert [(one.name, one.kind) for one in of(tmp_path, MOOD).properties] == [
        ("mood", ColumnKind.TEXT),
        ("score", ColumnKind.INTEGER),
        ("share", ColumnKind.NUMBER),
        ("sure", ColumnKind.BOOLEAN),
        ("words", ColumnKind.JSON),
    ]


def test_a_schema_without_properties_is_one_column_of_the_whole(tmp_path: Path) -> None:
    one = of(tmp_path, {"type": "array", "items": {"type": "string"}})
    assert (one.properties, one.kind) == ((), ColumnKind.JSON)
    assert of(tmp_path, {"enum": ["a", "b"]}).kind is ColumnKind.TEXT


def test_a_class_of_pydantic_checks_and_fills_in_what_it_defaults_to(tmp_path: Path) -> None:
    one = of_model(tmp_path)
    assert [column.kind for column in one.properties] == ["text", "integer", "text", "json"]
    assert one.checked('{"kind": "good", "score": 3, "inner": {"a": 1}}') == {
        "kind": "good", "score": 3, "note": None, "inner": {"a": 1},
    }  # fmt: skip
    with pytest.raises(AnswerMismatch, match=r"^\$\.score: Input should be less than or equal to 5$"):
        one.checked('{"kind": "good", "score": 30, "inner": {"a": 1}}')


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("so good", "it is no JSON"),
        ('{"mood": "good"', "it is no JSON"),
        ('{"mood": "good"}', r"\$: 'score' is a required property"),
        ('{"mood": "good", "score": 7}', r"\$\.score: 7 is greater than the maximum of 5"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_with_the_reason(tmp_path: Path, answer: str, reason: str) -> None:
    with pytest.raises(AnswerMismatch, match=reason):
        of(tmp_path, MOOD).checked(answer)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "http://127.0.0.1:9/x.json"}, r"names 'http://127\.0\.0\.1:9/x\.json', which is not in it"),
        ({"properties": {"a": {"items": {"$ref": "#/$defs/gone"}}}}, r"names '/\$defs/gone', which is not in it"),
        ({"$ref": "#"}, r"leads back to itself"),
        ({"$schema": [1]}, r"its \$schema is no text"),
    ],
)
def test_a_schema_that_no_answer_can_be_checked_by_is_refused_before_any_is_asked(
    tmp_path: Path, schema: dict[str, Any], words: str
) -> None:
    with pytest.raises(Problem, match=words):
        of(tmp_path, schema)


def test_a_reference_within_the_schema_is_none_to_elsewhere(tmp_path: Path) -> None:
    a = {"$id": "http://a/s", "properties": {"x": {"$ref": "http://a/s#/$defs/b"}}, "$defs": {"b": {"type": "string"}}}
    of(tmp_path, a)
    tree = {"$defs": {"n": {"properties": {"n": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n", "const": {"$ref": "#x"}}
    of(tmp_path, tree)


def test_a_pattern_that_tries_everything_ends_that_answer_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_schema, "at_most", lambda: time_limit.at_most(0.05))
    schema = of(tmp_path, {"type": "string", "pattern": "^(a+)+$"})
    with pytest.raises(AnswerMismatch, match=r"it can't be checked: TookTooLong: it takes longer than 0\.05 s"):
        schema.checked(json.dumps("a" * 60 + "b"))
    assert schema.checked('"aa"') == "aa"


def test_a_class_whose_own_check_fails_is_a_mismatch_and_one_without_a_schema_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from collections.abc import Callable\nfrom pydantic import BaseModel, field_validator\n"
        "class Odd(BaseModel):\n    a: int\n    @field_validator('a')\n"
        "    def look(cls, value): return {}[value]\n"
        "class None_(BaseModel):\n    a: Callable[[int], int]\n"
    )
    with pytest.raises(AnswerMismatch, match="it can't be checked: KeyError: 1"):
        load_schema(f"{tmp_path}/odd.py:Odd").checked('{"a": 1}')
    with pytest.raises(Problem, match="has no JSON schema"):
        load_schema(f"{tmp_path}/odd.py:None_")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(Problem, match="can't be imported: SystemExit"):
        load_schema(f"{tmp_path}/ends.py:Odd")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("gone.json", r"gone\.json can't be read"),
        ("bad.json", r"bad\.json is no JSON"),
        ("list.json", r"list\.json is no JSON schema"),
        ("wrong.json", r"wrong\.json is no JSON schema: \$\.type: "),
        ("json:JSONDecoder", "json has no pydantic model 'JSONDecoder'"),
        ("no.such.module:Mood", r"no\.such\.module can't be imported: ModuleNotFoundError"),
    ],
)
def test_a_schema_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "wrong.json").write_text('{"type": "texts"}')
    with pytest.raises(Problem, match=words):
        load_schema(where)


@pytest.mark.parametrize("text", ["", "a", 'long "words" of many kinds, and more', "\ud800"])
def test_the_simulated_engine_answers_what_fits(tmp_path: Path, text: str) -> None:
    for schema in (of(tmp_path, MOOD), of_model(tmp_path), of(tmp_path, {"type": "array", "items": {"type": "null"}})):
        schema.checked(fitting(schema.schema, text.replace("\ud800", "�")))
