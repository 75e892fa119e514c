"""Qualifiers: what a person types to filter a list, `status:failed lane:flex meta.team:search`, as the API asks it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Final

from penstock.domain.api_errors import BadRequest

METADATA: Final = "meta."


def read(asked: str, known: Iterable[str]) -> dict[str, str]:
    """The API's query parameters; raises BadRequest for a word that is no qualifier, or not one of `known`."""
    names = tuple(known)
    try:
        parts = shlex.split(asked)
    except ValueError:
        raise BadRequest("A quotation mark is missing.", param="q") from None
    found: dict[str, str] = {}
    for part in parts:
        name, colon, value = part.partition(":")
        if name.startswith(METADATA) and METADATA.removesuffix(".") in names and colon and value:
            found[f"metadata[{name.removeprefix(METADATA)}]"] = value
        elif name in names and colon and value:
            found[name] = f"{found[name]},{value}" if name in found else value
        else:
            shown = ", ".join(f"{METADATA}KEY:" if one == METADATA.removesuffix(".") else f"{one}:" for one in names)
            raise BadRequest(f"'{part[:60]}' is no qualifier; there are {shown}.", param="q")
    return found


def as_filter(query: Mapping[str, str]) -> dict[str, Any]:
    """The same as a bulk action's `filter`."""
    pairs = {name[9:-1]: value for name, value in query.items() if name.startswith("metadata[")}
    chosen: dict[str, Any] = {name: value for name, value in query.items() if not name.startswith("metadata[")}
    if "status" in chosen:
        chosen["status"] = chosen["status"].split(",")
    return chosen | ({"metadata": pairs} if pairs else {})
