"""A template is filled with a row's cells, in a sandbox; what it names must be there."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from penstock.cli.tables import prompt_template, time_limit
from penstock.cli.tables.prompt_template import PromptTemplate, RowFault
from penstock.stack.problem import Problem

COLUMNS = ("id", "text", "first name", "user.name", "tags")


def filled(template: str, /, **row: Any) -> str:
    """The prompt of a row, in a table of these columns."""
    return PromptTemplate(template, COLUMNS, "--prompt").filled(dict.fromkeys(COLUMNS) | row)


def test_cells_stand_where_they_are_named() -> None:
    assert filled("{{ id }}: {{ text|upper }}!", id=7, text="so") == "7: SO!"


def test_a_column_with_an_odd_name_is_reached_through_the_row() -> None:
    row = {"first name": "Bo", "user.name": "bo7"}
    assert filled("{{ row['first name'] }} {{ row['user.name'] }}", **row) == "Bo bo7"


def test_null_is_nothing_lists_are_json_and_dates_iso_8601() -> None:
    assert (
        filled("<{{ text }}|{{ tags }}|{{ id }}>", tags=["a", True], id=date(2026, 1, 2)) == '<|["a",true]|2026-01-02>'
    )


def test_text_is_not_escaped_and_braces_in_cells_are_no_template() -> None:
    assert filled("{{ text }}", text="<b> & {{ id }}") == "<b> & {{ id }}"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ txt }}", r"--prompt names the column 'txt', which is not in the table: did you mean \{\{ text \}\}\?"),
        ("{{ row['first_name'] }}", r"'first_name'.* did you mean \{\{ row\[\"first name\"\] \}\}\?"),
        ("{{ user.name }}", r"'user'.* did you mean \{\{ row\[\"user\.name\"\] \}\}\?"),
        ("{{ zzz }}", r"'zzz', which is not in the table: it has id, text, first name, user\.name, tags\."),
        ("{{ text", "--prompt is no Jinja template: "),
        ("{{ text|nonsense }}", "--prompt is no Jinja template: .*nonsense"),
    ],
)
def test_what_can_be_filled_with_no_row_is_refused_at_once(template: str, words: str) -> None:
    with pytest.raises(Problem, match=words):
        PromptTemplate(template, COLUMNS, "--prompt")


@pytest.mark.parametrize("template", ["{{ text.none.more }}", "{{ 1 / id }}", "{% include 'x' %}"])
def test_a_row_that_does_not_suit_the_template_is_the_rows_fault(template: str) -> None:
    with pytest.raises(RowFault):
        filled(template, id=0, text="a")


@pytest.mark.parametrize(
    "template", ["{{ text.__class__.__mro__ }}", "{{ tags.append(1) }}", "{{ ''.format.__globals__ }}"]
)
def test_a_template_does_not_get_out_of_its_sandbox(template: str) -> None:
    with pytest.raises(RowFault, match="SecurityError"):
        filled(template, text="a", tags=[])


@pytest.mark.parametrize(
    "template",
    ["{% for a in text %}" * 25 + "{% endfor %}" * 25, "{{ " + "(" * 5_000, "{% if id %}" * 150 + "{% endif %}" * 150],
)
def test_what_is_too_deep_for_a_template_is_one_line(template: str) -> None:
    with pytest.raises(Problem, match="--prompt can't be used as a template: "):
        filled(template)


def test_a_template_that_loops_for_ever_ends_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_template, "at_most", lambda: time_limit.at_most(0.05))
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(RowFault, match=r"TookTooLong: it takes longer than 0\.05 s"):
        filled(loops)


def test_half_a_surrogate_pair_in_a_cell_is_asked_written_out() -> None:
    assert filled("{{ text }}", text="a\ud800") == "a\\ud800"
