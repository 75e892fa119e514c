"""Schemas: what every answer must be, and which columns it becomes.

A schema of an object with properties makes a column of each of them. Any other makes one column of the whole value.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.cli.tables.column import Column, ColumnKind
from penstock.cli.tables.text_file import whole_text
from penstock.cli.tables.time_limit import at_most
from penstock.stack.problem import Problem

_MOST_REASON_CHARACTERS: Final = 300
_KINDS: Final = {
    "string": ColumnKind.TEXT,
    "integer": ColumnKind.INTEGER,
    "number": ColumnKind.NUMBER,
    "boolean": ColumnKind.BOOLEAN,
}


class AnswerMismatch(Exception):
    """An answer is not what the schema says."""


@dataclass(frozen=True)
class AnswerSchema:
    """A JSON schema, the columns that it makes, and its own check of an answer."""

    schema: dict[str, Any]
    properties: tuple[Column, ...]
    """Empty: the whole value is one column, of this kind."""
    kind: ColumnKind
    _checked: Callable[[str], Any]

    def checked(self, text: str) -> Any:
        """The value that an answer's text is; raise AnswerMismatch, with the reason, if it is not what it must be."""
        return self._checked(text)


def load_schema(where: str) -> AnswerSchema:
    """A JSON schema file, or a pydantic class as `module:Class` or `file.py:Class`; raise Problem."""
    source, colon, name = where.rpartition(":")
    if colon and name.isidentifier() and not Path(where).exists():
        return _of_class(source, name, where)
    try:
        schema = json.loads(whole_text(Path(where)))
    except (ValueError, RecursionError) as error:
        raise Problem(f"{where} is no JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise Problem(f"{where} is no JSON schema: it must be an object.")
    return _of_schema(schema, where)


def _of_schema(schema: dict[str, Any], where: str) -> AnswerSchema:
    # Here, since it takes 80 ms to import.
    import jsonschema
    import referencing

    if not isinstance(schema.get("$schema", ""), str):
        raise Problem(f"{where} is no JSON schema: its $schema is no text.")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise Problem(f"{where} is no JSON schema: {error.json_path}: {_short(error.message)}") from None
    # An empty registry: a $ref to somewhere else is never fetched.
    validator = kind(schema, registry=referencing.Registry())

    def checked(text: str) -> Any:
        value = _json(text)
        with _whatever_it_raises(), at_most():
            error = jsonschema.exceptions.best_match(validator.iter_errors(value))
        if error is not None:
            raise AnswerMismatch(f"{error.json_path}: {_short(error.message)}")
        return value

    _try_out(schema, validator, where)

    return AnswerSchema(schema, _properties(schema), _kind(schema, schema), checked)


def _of_class(source: str, name: str, where: str) -> AnswerSchema:
    import pydantic

    found = getattr(_module(source), name, None)
    if not (isinstance(found, type) and issubclass(found, pydantic.BaseModel)):
        raise Problem(f"--schema {where}: {source} has no pydantic model {name!r}.")

    def checked(text: str) -> Any:
        _json(text)
        with _whatever_it_raises(), at_most():
            return _instance(text)

    def _instance(text: str) -> Any:
        try:
            return found.model_validate_json(text).model_dump(mode="json", by_alias=True)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
            raise AnswerMismatch(f"${path}: {_short(first['msg'])}") from None

    try:
        schema = found.model_json_schema()
    except Exception as error:
        raise Problem(f"--schema {where} has no JSON schema: {_short(str(error))}") from None
    return AnswerSchema(schema, _properties(schema), _kind(schema, schema), checked)


def _module(source: str) -> Any:
    """A module by its name, as Python finds it from here, or by its file; raise Problem if it can't be imported."""
    try:
        if not source.endswith(".py"):
            sys.path.insert(0, str(Path.cwd()))
            try:
                return importlib.import_module(source)
            finally:
                sys.path.pop(0)
        file = Path(source).resolve()
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None, "a .py file has a loader"
        assert spec.loader is not None, "a .py file has a loader"
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(file.stem, module)  # annotations are looked up there
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:
        raise Problem(f"--schema: {source} can't be imported: {type(error).__name__}: {error}") from None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise AnswerMismatch("it is no JSON") from None


@contextmanager
def _whatever_it_raises() -> Iterator[None]:
    """A check that fails by itself, or never ends, is a mismatch of this answer: others may pass it."""
    try:
        yield
    except AnswerMismatch:
        raise
    except Exception as error:
        raise AnswerMismatch(f"it can't be checked: {type(error).__name__}: {_short(str(error))}") from None


def _refs(schema: Any, root: bool = True) -> Iterator[str]:
    """Every `$ref`, wherever one may stand; not in schemas with an `$id` of their own, to which they are relative."""
    if not root and isinstance(schema, dict) and "$id" in schema:
        return
    for name, one in schema.items() if isinstance(schema, dict) else ():
        if name in ("$ref", "$dynamicRef") and isinstance(one, str):
            yield one
        elif name not in ("const", "enum", "default", "examples"):
            yield from _refs(one, root=False)
    for one in schema if isinstance(schema, list) else ():
        yield from _refs(one, root=False)


def _try_out(schema: Any, validator: Any, where: str) -> None:
    """Raise Problem if a name in it leads nowhere, or back to itself: no answer could be checked."""
    import referencing

    resolver = validator._resolver
    try:
        for ref in {"#", *_refs(schema)}:
            resolver.lookup(ref)
        for text in ("null", '""', "0", "[]", "{}"):
            validator.is_valid(json.loads(text))
    except referencing.exceptions.Unresolvable as lost:
        raise Problem(f"{where} names {lost.ref!r}, which is not in it, and nothing is fetched.") from None
    except RecursionError:
        raise Problem(f"{where} has a $ref that leads back to itself.") from None


def _properties(schema: dict[str, Any]) -> tuple[Column, ...]:
    top = _resolved(schema, schema)
    named = top.get("properties")
    if not isinstance(named, dict) or top.get("type", "object") != "object":
        return ()
    return tuple(Column(name, _kind(one, schema)) for name, one in named.items())


def _kind(schema: Any, whole: dict[str, Any]) -> ColumnKind:
    """What every value that a schema allows is, null aside."""
    one = _resolved(schema, whole)
    types = one.get("type")
    types = [types] if isinstance(types, str) else types
    if types is None and ("enum" in one or "const" in one):
        values = one["enum"] if "enum" in one else [one["const"]]
        text = all(isinstance(value, str) or value is None for value in values)
        return ColumnKind.TEXT if text else ColumnKind.JSON
    if types is None and (choices := one.get("anyOf") or one.get("oneOf")):
        kinds = {_kind(choice, whole) for choice in choices if _resolved(choice, whole).get("type") != "null"}
        return kinds.pop() if len(kinds) == 1 else ColumnKind.JSON
    named = [type for type in types or () if type != "null"]
    return _KINDS.get(named[0], ColumnKind.JSON) if len(named) == 1 else ColumnKind.JSON


def _resolved(schema: Any, whole: dict[str, Any]) -> dict[str, Any]:
    """The schema itself behind a local `$ref`."""
    for _ in range(8):  # more than people write; a circle ends
        if not isinstance(schema, dict):
            return {}
        ref = schema.get("$ref")
        if not isinstance(ref, str) or not ref.startswith("#/"):
            return schema
        found: Any = whole
        for part in ref[2:].split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        schema = found
    return {}


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _MOST_REASON_CHARACTERS else line[: _MOST_REASON_CHARACTERS - 1] + "…"
