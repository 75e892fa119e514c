"""What commands print: words and tables for people, or one JSON document for programs, alone on standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from penstock.cli.outlet import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_WIDE: Final = 200
"""Columns of a page that no terminal's width bounds."""

Json = Annotated[bool, typer.Option("--json", help="One JSON document, as the API has it, instead of words.")]


def say(words: str) -> None:
    """One fact, on a line of its own that no terminal's width breaks."""
    print(visible(words), flush=True)


def remark(words: str) -> None:
    """What is no part of the answer, on standard error."""
    print(visible(words), file=sys.stderr, flush=True)


def utc(at: int) -> str:
    """Unix seconds as a moment to the second, in UTC: a head or a word beside it says so."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table without lines; without heads, too."""
    from rich.table import Table

    made = Table(*heads, box=None, pad_edge=False, show_header=bool(heads))
    for column in made.columns:
        column.overflow = "fold"  # an id that is cut is none
    for column in made.columns[:1]:
        column.no_wrap = True
    for row in rows:
        made.add_row(*row)
    return made


def show(what: RenderableType, where: Console | None = None) -> None:
    """A table, on standard output unless told."""
    (where or console()).print(what)


def console(stderr: bool = False, *, live: bool = False) -> Console:
    """Where words and tables go: a terminal that is narrower than a table breaks its lines, and nothing is cut.

    live: for what is drawn over what was there, which must fit.
    """
    from rich.console import Console, ConsoleDimensions

    class Screen(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(visible(text), **how)

    made = Screen(markup=False, highlight=False, stderr=stderr)
    if not (live and is_live(made)):
        made.size = ConsoleDimensions(max(made.width, _WIDE), made.height)  # a dumb terminal heeds no width alone
    return made


def is_live(where: Console) -> bool:
    """Whether something can be drawn over what was there; else one prints."""
    return where.is_terminal and not where.is_dumb_terminal


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
