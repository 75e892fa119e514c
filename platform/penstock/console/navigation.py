"""Navigation: where the console is, and its pages in the order of the menu, for those who submit and who operate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

BASE: Final = "/console"


def is_below(scope: Scope) -> bool:
    """Whether a request is for the console."""
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return path == BASE or path.startswith(f"{BASE}/")


@dataclass(frozen=True)
class MenuEntry:
    """A line of the menu."""

    title: str
    path: str
    """Below the console's own."""
    also: tuple[str, ...] = ()
    """Other places that belong to it."""

    def holds(self, here: str) -> bool:
        """Whether a page is this one, or below it."""
        return any(here == one or here.startswith(f"{one}/") for one in (self.path, *self.also))


SUBMIT: Final = (
    MenuEntry("Batches", "/batches", also=("/jobs",)),
    MenuEntry("Files", "/files"),
    MenuEntry("Webhooks", "/webhooks"),
    MenuEntry("Usage", "/usage"),
    MenuEntry("Limits", "/limits"),
)
"""For everybody: what is their tenant's."""
OPERATE: Final = (
    MenuEntry("Overview", "/overview"),
    MenuEntry("Workers", "/workers"),
    MenuEntry("Models and pools", "/models", also=("/pools",)),
    MenuEntry("Lanes", "/lanes"),
    MenuEntry("Tenants", "/tenants", also=("/erasures",)),
    MenuEntry("Recovery", "/recovery"),
    MenuEntry("Audit", "/audit"),
)
"""For operators: what is over all tenants."""


def menu(operates: bool) -> tuple[tuple[str, tuple[MenuEntry, ...]], ...]:
    """The menu's groups for somebody, each with its title."""
    groups = (("Your work", SUBMIT), ("The platform", OPERATE if operates else ()))
    return tuple((title, entries) for title, entries in groups if entries)
