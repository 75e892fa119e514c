"""`penstock settings`: every setting with its value, or the table that docs/limits.md holds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.printing import Json, listed, say_json, show, table

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_HEAD = """# Settings and limits

Each is read from the environment. This page is written by `penstock settings --markdown`; change the settings, not it.

| variable | default | what it is |
|---|---|---|
"""


def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="The table of docs/limits.md.")] = False,
    as_json: Json = False,
) -> None:
    """Show every setting and its present value."""
    from penstock.settings import Settings, load

    if markdown:
        print(page(), end="")
        return
    now, fields = load(), Settings.model_fields
    if as_json:
        say_json(listed(_document(name, getattr(now, name), field) for name, field in fields.items()))
        return
    rows = ((_variable(name), _words(getattr(now, name)), field.description or "") for name, field in fields.items())
    show(table(("variable", "value", "what it is"), rows))


def _document(name: str, value: Any, field: FieldInfo) -> dict[str, Any]:
    """One setting; what is secret is only said to be set."""
    plain = value if isinstance(value, int | float | None) else _words(value)
    told = list(value) if isinstance(value, tuple) else plain
    return {"object": "setting", "name": _variable(name), "value": told, "description": field.description}


def page() -> str:
    """docs/limits.md."""
    from penstock.settings import Settings

    rows = (
        f"| `{_variable(name)}` | {_words(field.default)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )
    return _HEAD + "".join(rows)


def _variable(name: str) -> str:
    from penstock.settings.misread import PREFIX

    return f"{PREFIX}{name.upper()}"


def _words(value: Any) -> str:
    """A value as people read it; secrets stay secret."""
    from pydantic import SecretStr

    from penstock.settings.concern import GIB, KIB, MIB

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
