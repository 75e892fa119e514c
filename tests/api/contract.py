"""OpenAI's published schemas as validators; properties that are not required may be null, as OpenAI answers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_FILE = Path(__file__).parents[1] / "contracts" / "openai-subset.openapi.json"


def _nullable(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_nullable(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _nullable(value) for key, value in schema.items()}
    properties = changed.get("properties")
    if isinstance(properties, dict):
        required = changed.get("required", [])
        changed["properties"] = {
            name: one if name in required else {"anyOf": [one, {"type": "null"}]} for name, one in properties.items()
        }
    return changed


_PAGE = json.loads(_FILE.read_text())
COMPONENTS = _nullable(_PAGE["components"])
PATHS = _PAGE["paths"]

# CreateFileRequest takes `evals`, too.
COMPONENTS["schemas"]["OpenAIFile"]["properties"]["purpose"]["enum"].append("evals")


def check(name: str, value: Any) -> None:
    """Raise unless the value is what this schema says."""
    Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": COMPONENTS}).validate(value)


def properties(name: str) -> set[str]:
    """Every property of a schema."""
    return set(COMPONENTS["schemas"][name]["properties"])
