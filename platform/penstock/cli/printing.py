"""What commands print: words and tables for people, or one JSON document for programs, alone on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="One JSON document, as the API has it, instead of words.")]


def say(words: str) -> None:
    """One fact, on a line of its own that no terminal's width breaks."""
    print(words, flush=True)


def remark(words: str) -> None:
    """What is no part of the answer, on standard error."""
    print(words, file=sys.stderr, flush=True)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table without lines; without heads, too."""
    from rich.table import Table

    made = Table(*heads, box=None, pad_edge=False, show_header=bool(heads))
    for row in rows:
        made.add_row(*row)
    return made


def show(what: RenderableType, where: Console | None = None) -> None:
    """A table, on standard output unless told."""
    (where or console()).print(what)


def console(stderr: bool = False) -> Console:
    """Where words and tables go; in a pipe they are not cut at 80 columns."""
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(markup=False, highlight=False, stderr=stderr, width=None if terminal else 200)


def say_json(document: Any) -> None:
    """A document: plain values, or a shape of the API."""
    say(json_text(plain(document), indent=2))


def plain(document: Any) -> Any:
    """A shape of the API as plain values; what is plain already stays."""
    return document.model_dump(mode="json") if hasattr(document, "model_dump") else document


def listed(data: Iterable[Any]) -> dict[str, Any]:
    """A list as the API has it, whole."""
    return {"object": "list", "data": [plain(one) for one in data]}


def json_text(value: Any, **how: Any) -> str:
    """JSON for people, in their letters; where half a surrogate pair stands, which no UTF-8 has, all in escapes."""
    text = json.dumps(value, ensure_ascii=False, **how)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, **how)
    return text
