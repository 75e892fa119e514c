"""What the echo engine says where a request wants JSON of a schema: an object that fits, made of the request's words.

It fits what people write: types, properties, enum, const, anyOf, local `$ref`, bounds of numbers and lengths. It does
not look at patterns and formats, as a real engine's grammar does.
"""

from __future__ import annotations

import json
import math
import zlib
from typing import Any, Final

_DEEPEST: Final = 16


def asked_schema(body: dict[str, Any]) -> Any:
    """The schema that a chat's `response_format` names; None if it names none."""
    wanted = body.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return None
    named = wanted.get("json_schema")
    return named.get("schema") if isinstance(named, dict) else None


def fitting(schema: Any, text: str) -> str:
    """JSON that fits the schema: its texts are the request's, its numbers and choices follow from them."""
    return json.dumps(_value(schema, schema, text, "$", 0), ensure_ascii=False)


def _value(schema: Any, whole: Any, text: str, path: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return None
    if "$ref" in schema:
        return _value(_target(schema["$ref"], whole), whole, text, path, depth + 1)
    if "const" in schema:
        return schema["const"]
    drawn = zlib.crc32(f"{path} {text}".encode(errors="replace"))
    if schema.get("enum"):
        return schema["enum"][drawn % len(schema["enum"])]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return _value(choices[0], whole, text, path, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    match kind:
        case "object":
            named = schema.get("properties", {})
            return {name: _value(one, whole, text, f"{path}.{name}", depth + 1) for name, one in named.items()}
        case "array":
            count = schema.get("minItems", min(1, schema.get("maxItems", 1)))
            return [_value(schema.get("items"), whole, text, f"{path}[{n}]", depth + 1) for n in range(count)]
        case "integer":
            low = math.ceil(schema.get("minimum", 0))
            return low + drawn % (math.floor(schema.get("maximum", low + 100)) - low + 1)
        case "number":
            low = schema.get("minimum", 0)
            return low + (schema.get("maximum", low + 1) - low) * (drawn % 1000) / 1000
        case "boolean":
            return drawn % 2 == 0
        case "null":
            return None
    return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _target(ref: Any, whole: Any) -> Any:
    found = whole
    for part in str(ref).removeprefix("#").strip("/").split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    return found
