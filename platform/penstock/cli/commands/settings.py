"""`penstock settings`: every setting with its value, or the table that docs/limits.md holds."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from penstock.settings import Settings, load
from penstock.settings.concern import GIB, KIB, MIB

_HEAD = """# Settings and limits

Each is read from the environment. This page is written by `penstock settings --markdown`; change the settings, not it.

| variable | default | what it is |
|---|---|---|
"""


def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="The table of docs/limits.md.")] = False,
) -> None:
    """Show every setting and its present value."""
    if markdown:
        print(page(), end="")
        return
    now = load()
    table = Table("variable", "value", "what it is", box=None, pad_edge=False)
    for name, field in Settings.model_fields.items():
        table.add_row(_variable(name), _words(getattr(now, name)), field.description)
    Console(markup=False, highlight=False).print(table)


def page() -> str:
    """docs/limits.md."""
    rows = (
        f"| `{_variable(name)}` | {_words(field.default)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )
    return _HEAD + "".join(rows)


def _variable(name: str) -> str:
    return f"{Settings.model_config['env_prefix']}{name.upper()}"


def _words(value: Any) -> str:
    """A value as people read it; secrets stay secret."""
    if value is None:
        return "–"
    if isinstance(value, SecretStr):
        return "(set)"
    if isinstance(value, int) and not isinstance(value, bool):
        for size, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
            if value >= size and value % size == 0:
                return f"{value:,} ({value // size} {unit})"
        return f"{value:,}"
    return re.sub(r"(://[^:/@]*:)[^@/]*@", r"\1…@", str(value))  # a server's password
