"""Wording: what is wrong with a value, in the words of JSON and of people instead of those of who checked it.

pydantic speaks of items where a text has characters, of dictionaries and instances, and of what happened "after
validation"; msgspec of Python's types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_WORDS: Final = {
    "string_type": "it must be a string",
    "int_type": "it must be an integer",
    "int_parsing": "it must be an integer",
    "int_parsing_size": "it is too large",
    "int_from_float": "it must be an integer",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "finite_number": "it must be a number that is not infinite",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "list_type": "it must be an array",
    "dict_type": "it must be an object",
    "model_type": "it must be an object",
    "model_attributes_type": "it must be an object",
    "literal_error": "it must be {expected}",
    "enum": "it must be {expected}",
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "too_long": "it must have at most {max_length} {things}",
    "too_short": "it must have at least {min_length} {things}",
    "string_too_long": "it must have at most {max_length} characters",
    "string_too_short": "it must have at least {min_length} characters",
    "string_pattern_mismatch": "it must match {pattern}",
    "datetime_from_date_parsing": "it must be a time, like 2026-01-31T12:00:00Z",
    "datetime_parsing": "it must be a time, like 2026-01-31T12:00:00Z",
    "date_from_datetime_parsing": "it must be a day, like 2026-01-31",
    "date_parsing": "it must be a day, like 2026-01-31",
}
"""By pydantic's name of the fault (https://docs.pydantic.dev/latest/errors/validation_errors)."""
_THINGS: Final = {"List": ("entry", "entries"), "Dictionary": ("pair", "pairs")}

_TYPES: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
}
_EXPECTED: Final = re.compile(r"Expected `(?P<wanted>[^`]*)`(?:, got `(?P<got>[^`]*)`)?")


def of_pydantic(fault: Mapping[str, Any]) -> str:
    """What is wrong, without a full stop and without the value."""
    told = _WORDS.get(fault["type"])
    if told is None:
        return str(fault["msg"]).removeprefix("Value error, ").rstrip(".")
    context = dict(fault.get("ctx") or {})
    one, many = _THINGS.get(str(context.get("field_type")), ("character", "characters"))
    bound = context.get("max_length", context.get("min_length"))
    return told.format(**context, things=one if bound == 1 else many)


def of_msgspec(told: str) -> str:
    """What is wrong by msgspec's message, without a full stop."""
    found = _EXPECTED.fullmatch(told)
    if found is None:
        return told[:200]
    wanted = " or ".join(_TYPES.get(one, one) for one in found["wanted"].split(" | "))
    got = f", not {_TYPES.get(found['got'], found['got'])}" if found["got"] else ""
    return f"it must be {wanted}{got}"
