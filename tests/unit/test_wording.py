"""Whatever is wrong with a request's field is said in the words of JSON and of people, for every body that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from pydantic import TypeAdapter, ValidationError

from penstock.api import app  # noqa: F401  # so that all bodies are there
from penstock.api.http import body, errors
from penstock.api.http.body import Asked
from penstock.api.schemas.terms import Metadata
from penstock.domain.api_errors import BadRequest

WRONG: tuple[Any, ...] = (
    None, 5, 5.5, -1, 10**30, float("inf"), True, "", "-1", "\0", "x" * 30_000, [], [5], ["x"] * 1_000, {}, {"a": 5},
    {"x" * 100: "y"}, {"x": "y" * 1_000}, {str(number): "x" for number in range(100)},
)  # fmt: skip
OF_A_LIBRARY = re.compile(r"\b(should|items?|Input|validation|instance|dictionary|valid|Field|str|int|dict)\b")


def bodies(root: type[Asked] = Asked) -> Iterator[type[Asked]]:
    for one in root.__subclasses__():
        yield one
        yield from bodies(one)


@pytest.mark.parametrize("model", sorted(set(bodies()), key=lambda one: one.__name__))
def test_no_fault_of_a_body_is_told_in_the_words_of_a_library(model: type[Asked]) -> None:
    for value in WRONG:
        try:
            model.model_validate(dict.fromkeys(model.model_fields, value))
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_input=False):
                message = errors.from_validation([fault]).message
                assert not OF_A_LIBRARY.search(message.partition(":")[2]), message


@pytest.mark.parametrize(
    ("value", "param", "words"),
    [
        ({"a": "x" * 513}, "metadata.a", "it must have at most 512 characters"),
        ({"x" * 65: "a"}, "metadata", "of each key, it must have at most 64 characters"),
        ({str(number): "x" for number in range(17)}, "metadata", "it must have at most 16 pairs"),
        ({"a": 5}, "metadata.a", "it must be a string"),
        ([], "metadata", "it must be an object"),
    ],
)
def test_metadata_that_is_too_much_is_told_by_characters_and_pairs(value: Any, param: str, words: str) -> None:
    with pytest.raises(ValidationError) as error:
        TypeAdapter(dict[str, Metadata]).validate_python({"metadata": value}, strict=True)
    told = errors.from_validation(error.value.errors())
    assert (told.param, told.message) == (param, f"Invalid '{param}': {words}.")


def test_a_list_that_is_empty_needs_an_entry() -> None:
    assert (
        errors.from_validation(
            [{"type": "too_short", "loc": ("events",), "msg": "", "ctx": {"field_type": "List", "min_length": 1}}]
        ).message
        == "Invalid 'events': it must have at least 1 entry."
    )


def test_faults_of_a_line_are_told_by_the_types_of_json() -> None:
    class Line(msgspec.Struct):
        n: int | None

    with pytest.raises(BadRequest) as told:
        body.decode(b'{"n": "x"}', Line)
    assert told.value.message == "Invalid 'n': it must be an integer or null, not a string."
