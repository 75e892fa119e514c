"""`--watch`: a list that is shown again whenever it changes, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from penstock.cli.printing import console, is_live, json_text, plain, say, say_json, show

if TYPE_CHECKING:
    from rich.console import RenderableType

LOOK_SECONDS: Final = 2.0

Watch = Annotated[
    bool, typer.Option("--watch", help="Show it again whenever it changes, until Ctrl-C; with --json, one a line.")
]


def once_or_kept(look: Callable[[], Any], draw: Callable[[Any], RenderableType], keep: bool, as_json: bool) -> None:
    """Show what `look` finds as `draw` draws it, or as JSON: once, or whenever it changed."""
    if not keep:
        say_json(look()) if as_json else show(draw(look()))
        return
    if as_json:
        _keep(look, lambda found: say(json_text(plain(found), separators=(",", ":"))))
        return
    where = console(live=True)
    if not is_live(where):
        _keep(look, lambda found: show(draw(found), where))
        return
    from rich.live import Live

    with Live(console=where, auto_refresh=False) as live:
        _keep(look, lambda found: live.update(draw(found), refresh=True))


def _keep(look: Callable[[], Any], show: Callable[[Any], None]) -> None:
    before = None
    while True:
        found = look()
        if found != before:
            show(found)
        before = found
        time.sleep(LOOK_SECONDS)
