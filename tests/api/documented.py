"""Every answer is documented: its status, media type and JSON body are what our OpenAPI page says of the route.

So are, by OpenAI's published schemas, the answers of files, uploads, batches and models, and every error below `/v1`.
A page says what is promised: of ours, an object that has fields which its schema does not name is a finding, too.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from typing import Any, Protocol

from api import contract
from jsonschema import Draft202012Validator

from penstock.api.app import create_api
from penstock.settings import Settings

# What a browser reads, and the page itself: they are no part of the API that the page describes.
_PAGES = re.compile(r"/docs\b.*|/openapi\.json")
_ENVELOPE = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}}}
_NO_OPERATION: dict[str, Any] = {"responses": {"4XX": _ENVELOPE}}
_OPENAIS = ("/v1/files", "/v1/uploads", "/v1/batches", "/v1/models")


class Answer(Protocol):
    """An answer of httpx, or of the library of that kind which OpenAI's SDK brings along."""

    @property
    def request(self) -> Any: ...
    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Any: ...
    def read(self) -> bytes: ...


@dataclass(frozen=True)
class Page:
    """The operations of an OpenAPI page, and their validators, each made once."""

    paths: dict[str, Any]
    components: dict[str, Any]
    _validators: dict[str, Draft202012Validator] = field(default_factory=dict)

    def methods(self, path: str) -> dict[str, Any]:
        """What the page has at a path, by method; empty if it has no such path."""
        found: dict[str, Any] = {}
        for pattern, methods in self._patterns:
            if pattern.fullmatch(path):
                found = methods | found
        return found

    @functools.cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], dict[str, Any]]]:
        """Paths without parameters first, as the router has them; a model's name may hold slashes."""

        def pattern(path: str) -> re.Pattern[str]:
            parts = re.split(r"(\{\w+\})", path)
            return re.compile(
                "".join(
                    (".+" if part == "{model}" else "[^/]*") if part[:1] == "{" else re.escape(part) for part in parts
                )
            )

        return [(pattern(path), self.paths[path]) for path in sorted(self.paths, key=lambda path: path.count("{"))]

    def faults(self, schema: dict[str, Any], value: Any) -> list[str]:
        """Where a value is not what a schema of this page says."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            self._validators[key] = Draft202012Validator({**schema, "components": self.components})
        return [f"{one.json_path}: {one.message[:300]}" for one in self._validators[key].iter_errors(value)]


def _closed(schema: Any) -> Any:
    """The same schema, of objects that have no fields but those it names."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(changed.get("properties"), dict) and changed.get("type") == "object":
        changed.setdefault("additionalProperties", False)
    return changed


@functools.cache
def ours() -> Page:
    """The page that the API itself shows."""
    settings = Settings(database_url="postgresql://nowhere/none", redis_url="redis://nowhere", blob_url="memory:///")
    page = create_api(settings).openapi()
    return Page(page["paths"], _closed(page["components"]))


@functools.cache
def openais() -> Page:
    """OpenAI's, of the routes that we answer ourselves."""
    paths = {f"/v1{path}": methods for path, methods in contract.PATHS.items()}
    return Page({path: paths[path] for path in paths if path.startswith(_OPENAIS)}, contract.COMPONENTS)


def check(answer: Answer) -> None:
    """Raise AssertionError with every fault of this answer; a response hook of httpx's clients."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    value = json.loads(answer.read() or b"null") if kind == "application/json" else None
    method, path = answer.request.method.lower(), answer.request.url.path
    found = faults(method, path, answer.status_code, kind, value)
    assert not found, "\n".join([f"{method.upper()} {path} answered {answer.status_code}:", *found])


def faults(method: str, path: str, status: int, kind: str, value: Any) -> list[str]:
    """What is not documented about an answer, with a JSON value if it is of that media type."""
    if _PAGES.fullmatch(path):
        return []
    methods = ours().methods(path)
    operation = methods.get("get" if method == "head" else method, _NO_OPERATION)
    if operation is _NO_OPERATION and status < 400:
        return [f"the page has no such {'method' if methods else 'path'}"]
    return _of_ours(operation, method, status, kind, value) + _of_openai(method, path, status, kind, value)


def _of_ours(operation: dict[str, Any], method: str, status: int, kind: str, value: Any) -> list[str]:
    responses = operation["responses"]
    told = responses.get(str(status)) or responses.get(f"{status // 100}XX")
    if told is None:
        return [f"the status {status} is not documented, but {', '.join(responses)}"]
    kinds = told.get("content", {})
    if method == "head" or (not kind and not kinds):
        return []
    if kind not in kinds:
        return [f"the media type {kind!r} is not documented, but {', '.join(kinds) or 'none'}"]
    return ours().faults(kinds[kind].get("schema", {}), value) if kind == "application/json" else []


def _of_openai(method: str, path: str, status: int, kind: str, value: Any) -> list[str]:
    if kind != "application/json" or method == "head" or not path.startswith("/v1/"):
        return []
    if status >= 400:
        schema: dict[str, Any] = {"$ref": "#/components/schemas/ErrorResponse"}
    elif path in ours().paths and path not in openais().paths:  # `/v1/batches/totals` is no batch's id
        return []
    elif found := (openais().methods(path) or {}).get(method):
        schema = found["responses"].get(str(status), {}).get("content", {}).get(kind, {}).get("schema", {})
    else:
        return []
    return [f"by OpenAI's schema, {fault}" for fault in openais().faults(schema, value)]
