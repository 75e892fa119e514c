"""Pages: templates filled in. Everything that is put in is text: nothing of a client's or a model's is ever markup."""

from __future__ import annotations

import secrets
from functools import cache
from typing import Any, Final

from fastapi import Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse

import penstock
from penstock.console import assets, fleet_words, navigation, words
from penstock.console.batches import batch_words, estimate_words
from penstock.console.session import Visitor

_FILTERS: Final = (
    batch_words.shown_status, batch_words.left, batch_words.expected_short, batch_words.total_cost,
    batch_words.elapsed, batch_words.verdict, batch_words.ended_at, batch_words.has_ended, batch_words.why_unknown,
    batch_words.mean_rate, batch_words.happened, batch_words.retry_token,
    words.number, words.short, words.size, words.percent, words.duration, words.moment, words.clock, words.money,
    words.visible, words.excerpt,
    fleet_words.version_name, fleet_words.model_name, fleet_words.ago, fleet_words.hours,
    fleet_words.switched, fleet_words.why_switched, fleet_words.unkept,
    estimate_words.how_read, estimate_words.how_written,
)  # fmt: skip


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("penstock.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {one.__name__: one for one in _FILTERS}
    made.globals["version"] = penstock.__version__
    return made


def page(request: Request, visitor: Visitor | None, template: str, status: int = 200, **values: Any) -> Response:
    """A whole page for somebody; `values` is what its template names. Its forms are done once, by `once`."""
    return HTMLResponse(text(request, visitor, template, **({"once": secrets.token_urlsafe(18)} | values)), status)


def text(request: Request, visitor: Visitor | None, template: str, **values: Any) -> str:
    """A template filled in: a page, or a part of one."""
    root = str(request.scope.get("root_path", ""))

    def url(path: str) -> str:
        """Where a page of the console is."""
        return f"{root}{navigation.BASE}{path}"

    given: dict[str, Any] = {
        "url": url,
        "asset": lambda file: root + assets.path_of(file),
        "visitor": visitor,
        "menu": navigation.menu(visitor.operates) if visitor else (),
        "here": request.url.path.removeprefix(root + navigation.BASE),
        "notice": request.query_params.get("done"),
        "notices": {},
    }
    return _environment().get_template(template).render(given | values)


def redirect(request: Request, path: str) -> Response:
    """To another page of the console, which is asked for with GET."""
    root = str(request.scope.get("root_path", ""))
    return RedirectResponse(f"{root}{navigation.BASE}{path}", 303)
