"""A schema says which columns there will be, and refuses answers with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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


def test_a_reference_to_elsewhere_is_never_fetched(tmp_path: Path) -> None:
    with pytest.raises(AnswerMismatch, match=r"names 'http://127\.0\.0\.1:9/x\.json', which is not in it"):
        of(tmp_path, {"$ref": "http://127.0.0.1:9/x.json"}).checked("1")


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
