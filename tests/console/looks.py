"""A look at a page: by axe-core in light and dark, at the width of a phone, and as a picture if pictures are wanted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_ALL: Final = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}
_OF_COLOURS: Final = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
"""What light and dark can differ in; all else is looked at once."""
_NARROW: Final = 360
_axe = Axe()
_SCHEMES: Final[tuple[tuple[Literal["light", "dark"], dict[str, object]], ...]] = (
    ("light", _ALL),
    ("dark", _OF_COLOURS),
)


def look(page: Page, name: str) -> None:
    """Look at a page that is shown; `name` is that of its pictures: NAME-light.png, NAME-dark.png, NAME-narrow.png.

    No violation of WCAG 2.2 AA or of axe-core's best practices, no inline style or script, no more than 150 kB of
    markup, and nothing that is wider than a phone but in a box that scrolls.
    """
    wide = page.viewport_size or {"width": 1280, "height": 720}
    assert len(page.content().encode()) < 150_000, f"{name}: the page is too heavy"
    for scheme, rules in _SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = _axe.run(page, options=rules)
        assert found.violations_count == 0, f"{name}, {scheme}: {found.generate_report()}"
        _picture(page, f"{name}-{scheme}")
    page.set_viewport_size({"width": _NARROW, "height": 760})
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    _picture(page, f"{name}-narrow")
    assert overflow <= 0, f"{name}: {overflow} px wider than a phone"
    page.set_viewport_size(wide)
    page.emulate_media(color_scheme="light")


def _picture(page: Page, name: str) -> None:
    wanted = os.environ.get("PENSTOCK_TEST_SCREENS")
    if wanted:
        folder = Path(wanted)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True)
