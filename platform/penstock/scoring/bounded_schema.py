"""JSON schemas of clients: checked in so many steps at most, without anything being fetched.

A schema of a few hundred bytes can ask for more steps than there is time (references to references), so each keyword
that is looked at is a step. Its patterns have the bounds of all patterns of clients.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.nesting import MOST_LEVELS, is_too_deep
from penstock.scoring.bounded_regex import BoundedRegex, PatternTooSlow

MOST_BYTES: Final = 64 * 1024
MOST_STEPS: Final = 100_000
"""For one answer: up to a second."""
MOST_EXPLOSIONS: Final = 10
"""After so many answers that took all steps the next have LATER_STEPS, as a search has less time then."""
LATER_STEPS: Final = 5_000
_NOT_READ: Final = ("patternProperties", "$dynamicRef", "$recursiveRef")


class TooComplex(Exception):
    """The schema asks for more steps than an answer has."""


class BoundedSchema:
    """One schema (draft 2020-12)."""

    def __init__(self, schema: Mapping[str, Any], param: str | None = None) -> None:
        """Raises BadRequest if it is none, or has what is not read here."""
        import jsonschema
        from referencing import Registry

        if is_too_deep(schema):
            raise BadRequest(f"The schema is too deep: {MOST_LEVELS} levels are allowed.", param=param)
        written = json.dumps(schema)
        if "\\u0000" in written:
            raise BadRequest("The schema holds a NUL character.", param=param)
        if len(written) > MOST_BYTES:
            raise BadRequest(f"A schema has at most {MOST_BYTES} bytes.", param=param)
        if '"dependentSchemas"' in written and '"unevaluated' in written:
            # jsonschema looks through the former for the latter by itself, not by keywords that are counted.
            raise BadRequest("A schema can't have 'dependentSchemas' beside 'unevaluated…' here.", param=param)
        self._steps = 0
        self._patterns: dict[str, BoundedRegex] = {}
        self._references: set[str] = set()
        self._read(schema, param)
        base = jsonschema.Draft202012Validator
        try:
            base.check_schema(schema)
        except (jsonschema.SchemaError, RecursionError) as error:
            why = getattr(error, "message", "it is too deep")
            raise BadRequest(f"The schema is none: {why[:200]}.", param=param) from None
        self._explosions = 0
        own: dict[str, Callable[..., Any]] = {"pattern": self._pattern, "uniqueItems": _unique}
        keywords = {name: self._counted(own.get(name, check)) for name, check in base.VALIDATORS.items()}
        self._validator = jsonschema.validators.extend(base, keywords)(schema, registry=Registry())
        self._look_up(schema, param)

    def fault(self, text: str) -> str | None:
        """Why a text is not what the schema allows; None if it is. Raises TooComplex and PatternTooSlow."""
        from referencing.exceptions import Unresolvable

        try:
            value = json.loads(text, parse_constant=_refuse)
        except ValueError:
            return "it is no JSON"
        except RecursionError:
            raise TooComplex from None
        self._steps = 0
        try:
            error = next(self._validator.iter_errors(value), None)
        except (RecursionError, ArithmeticError, ValueError):  # multipleOf meets numbers that no float holds
            raise TooComplex from None
        except Unresolvable as error:
            return f"the schema refers to what is not there: {str(error)[:100]}"
        if error is None:
            return None
        place = "/".join(map(str, error.absolute_path))
        return f"{error.message[:120]}" + (f" at {place[:60]}" if place else "")

    def _read(self, schema: Any, param: str | None) -> None:
        """Refuse what is not read here, and compile patterns, so that a bad one is told at once."""
        if isinstance(schema, list):
            for one in schema:
                self._read(one, param)
        if not isinstance(schema, dict):
            return
        for name, value in schema.items():
            if name in _NOT_READ:
                raise BadRequest(f"A schema can't have {name!r} here.", param=param)
            if name == "$ref" and not (isinstance(value, str) and value.startswith("#")):
                raise BadRequest("A schema can refer only to its own parts (`#/$defs/…`).", param=param)
            if name == "$ref":
                self._references.add(value)
            if name == "pattern" and isinstance(value, str):
                self._patterns[value] = BoundedRegex(value, param)
            try:
                self._read(value, param)
            except RecursionError:
                raise BadRequest("The schema is too deep.", param=param) from None

    def _look_up(self, schema: Mapping[str, Any], param: str | None) -> None:
        """Refuse a reference to what is not there."""
        from referencing import Registry
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012

        resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
        for reference in sorted(self._references):
            try:
                resolver.lookup(reference)
            except Unresolvable:
                raise BadRequest(f"The schema refers to what is not there: {reference[:100]!r}.", param=param) from None

    def _counted(self, check: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            self._steps += 1
            if self._steps > (MOST_STEPS if self._explosions < MOST_EXPLOSIONS else LATER_STEPS):
                self._explosions += 1
                raise TooComplex
            yield from check(validator, value, instance, schema) or ()

        return counted

    def _pattern(self, validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[Any]:
        import jsonschema

        if not isinstance(instance, str):
            return
        compiled = self._patterns.get(pattern) or BoundedRegex(pattern)
        if compiled.find(instance) is None:
            yield jsonschema.ValidationError(f"{instance[:60]!r} does not match {pattern!r}")


def _refuse(constant: str) -> None:
    """NaN and infinities are no JSON, whatever Python reads."""
    raise ValueError(constant)


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """In one pass: jsonschema's own compares each with each where they can't be sorted."""
    import jsonschema

    if not wanted or not isinstance(instance, list):
        return
    seen = set()
    for one in instance:
        text = json.dumps(one, sort_keys=True)
        if text in seen:
            yield jsonschema.ValidationError("it has an element twice")
            return
        seen.add(text)


__all__ = ["MOST_BYTES", "BoundedSchema", "PatternTooSlow", "TooComplex"]
