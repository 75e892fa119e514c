"""Names of models: what requests, queues and pages can hold."""

from __future__ import annotations

from typing import Final

from penstock.domain.api_errors import BadRequest

MOST_CHARACTERS: Final = 200


def check_name(name: str, whose: str = "A model's", param: str = "model") -> str:
    """The name, or BadRequest for what can't be one; `whose` it is, and the field that it came in."""
    if not 0 < len(name) <= MOST_CHARACTERS or not name.isprintable() or name != name.strip():
        message = f"{whose} name has 1 to {MOST_CHARACTERS} printable characters, and no space at its ends."
        raise BadRequest(message, param=param)
    if not {".", ".."}.isdisjoint(
        name.split("/")
    ):  # clients leave such parts of a path out, so nobody could ask for it
        raise BadRequest(f"{whose} name has no part between slashes that is '.' or '..'.", param=param)
    return name
