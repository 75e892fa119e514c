"""Paths with a name and what stands after its @: `org/chat@v2`. A name may hold slashes, what follows holds none.

So `/v1/model_versions/org/chat@v2/retire` is that, and no version called `v2/retire`.
"""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor


class AtConvertor(Convertor[str]):
    """`{id:at}` in a route."""

    regex = ".+@[^/@]+"

    def convert(self, value: str) -> str:
        """As it stands in the path."""
        return value

    def to_string(self, value: str) -> str:
        """The reverse."""
        return value


def register() -> None:
    """Let routes say `{id:at}`."""
    register_url_convertor("at", AtConvertor())
