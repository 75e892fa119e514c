"""Names of models: what requests, queues and pages can hold."""

from __future__ import annotations

from typing import Final

from penstock.domain.api_errors import BadRequest

MOST_CHARACTERS: Final = 200


def check_name(name: str) -> str:
    """The name, or BadRequest for what can't be one."""
    if not 0 < len(name) <= MOST_CHARACTERS or not name.isprintable() or name != name.strip():
        message = f"A model's name has 1 to {MOST_CHARACTERS} printable characters, and no space at its ends."
        raise BadRequest(message, param="model")
    if not {".", ".."}.isdisjoint(
        name.split("/")
    ):  # clients leave such parts of a path out, so nobody could ask for it
        raise BadRequest("No part of a model's name between slashes is '.' or '..'.", param="model")
    return name
