"""A desk for tests of operators' pages: a client that is logged in as a browser would be, and texts that mean harm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

HARM: Final = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    '<b hx-get="/console/batches" hx-trigger="load">x</b>',
    "abc\u202egnp.exe",
)
"""What must stay text wherever it is shown."""


@contextmanager
def desk(url: str, key: str) -> Iterator[httpx.Client]:
    """Logged in with a key; its requests are those of the console's own pages."""
    with httpx.Client(base_url=url, headers={"sec-fetch-site": "same-origin"}, timeout=30) as client:
        assert client.post("/console/login", data={"key": key, "then": "/limits"}).status_code == 303
        yield client


def is_inert(page: str, text: str) -> bool:
    """Whether a page holds this text as text only: escaped, and where it is shown with its directions visible.

    A field in which it is changed holds it as it is.
    """
    shown = re.sub(r'value="[^"]*"', "", page) if "\u202e" in text else page
    return text not in shown
