"""Prompts: a Jinja template over the columns, in a sandbox, that names nothing which is not there."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any, Final

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from penstock.cli.tables.column import as_text, storable
from penstock.cli.tables.time_limit import at_most
from penstock.stack.problem import Problem

ROW: Final = "row"
"""The whole row, for columns whose name no template can say: `{{ row["first name"] }}`."""

_ENGINE: Final = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, finalize=as_text)


class RowFault(Exception):
    """The template can't be filled with this row."""


class PromptTemplate:
    """A template that was read, and whose columns are there."""

    def __init__(self, text: str, columns: Collection[str], option: str) -> None:
        """Raise Problem on what is no template, or names a column that is missing.

        option: where the text came from, for people.
        """
        try:
            with at_most():
                tree = _ENGINE.parse(text)
                _check(tree, columns, option)
                self._template = _ENGINE.from_string(tree)
        except jinja2.TemplateError as error:
            raise Problem(f"{option} is no Jinja template: {_line(error)}.") from None
        except Problem:
            raise
        # Python compiles what Jinja made of it, and counts what is constant: too deep, too many digits, too long.
        except Exception as error:
            raise Problem(f"{option} can't be used as a template: {type(error).__name__}: {_line(error)}.") from None
        self._row = ROW not in columns

    def filled(self, row: dict[str, Any]) -> str:
        """The prompt of a row; raise RowFault if it can't be made."""
        try:
            with at_most():
                return storable(self._template.render({ROW: row, **row} if self._row else row))
        # A filter or operator may raise whatever Python raises for a cell that it does not suit.
        except Exception as error:
            raise RowFault(f"{type(error).__name__}: {_line(error)}") from None


def _check(tree: nodes.Template, columns: Collection[str], option: str) -> None:
    for name in sorted(meta.find_undeclared_variables(tree)):
        if name not in columns and name not in _ENGINE.globals and name != ROW:
            raise _missing(name, columns, option)
    if ROW in columns:
        return
    found: list[nodes.Getitem | nodes.Getattr] = [*tree.find_all(nodes.Getitem), *tree.find_all(nodes.Getattr)]
    for item in found:
        if isinstance(item.node, nodes.Name) and item.node.name == ROW:
            asked = item.attr if isinstance(item, nodes.Getattr) else getattr(item.arg, "value", None)
            if isinstance(asked, str) and asked not in columns and not hasattr(dict, asked):
                raise _missing(asked, columns, option)


def _missing(name: str, columns: Collection[str], option: str) -> Problem:
    near = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
    # `{{ user.name }}` asks for `user`, where a column may be called `user.name`.
    near = near or [column for column in columns if column.startswith(name)][:1]
    if not near:
        there = ", ".join(list(columns)[:10]) + (", …" if len(columns) > 10 else "")
        return Problem(f"{option} names the column {name!r}, which is not in the table: it has {there}.")
    said = near[0] if near[0].isidentifier() else f'row["{near[0]}"]'
    return Problem(f"{option} names the column {name!r}, which is not in the table: did you mean {{{{ {said} }}}}?")


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200].rstrip(".")
