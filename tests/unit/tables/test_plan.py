"""What is wrong with a map is said in one line before anything is opened elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.table_map.plan import MapOptions, planned
from penstock.cli.tables.input_table import open_table
from penstock.cli.tables.table_format import TableFormat
from penstock.stack.problem import Problem


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("text,error\na,b\n")
    (tmp_path / "t").write_text("text;n\na;1\n")
    return tmp_path


def options(table: str = "t.csv", out: str = "o.csv", **more: Any) -> MapOptions:
    """A command that is right but for what is given."""
    return MapOptions(**({"table": table, "out": Path(out), "prompt": "{{ text }}", "prefix": "x_"} | more))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prompt": "{{ txt }}"}, r"--prompt names the column 'txt'.* did you mean \{\{ text \}\}\?"),
        ({"prompt": "{{ txt }}", "prompt_option": "--prompt-file"}, "--prompt-file names the column 'txt'"),
        ({"system": "{{ rwo }}"}, "--system names the column 'rwo'"),
        ({"prefix": ""}, "has a column 'error' already: say --prefix"),
        ({"out": "o.xlsx"}, "has the extension '.xlsx'"),
        ({"out": "t.csv"}, r"t\.csv would be overwritten"),
        ({"table": "gone.csv"}, r"gone\.csv can't be read: No such file or directory\."),
        ({"table": "-"}, "Say --format"),
        ({"table": "t"}, "has no extension"),
        ({"format": TableFormat.JSONL, "delimiter": ";"}, "--delimiter is for CSV"),
        ({"schema": "gone.json"}, r"gone\.json can't be read"),
    ],
)
def test_a_mistake_is_named(folder: Path, wrong: dict[str, Any], words: str) -> None:
    wrong = {name: Path(value) if name == "out" else value for name, value in wrong.items()}
    with pytest.raises(Problem, match=words), planned(options(**wrong)):
        pass


def test_a_file_without_an_extension_is_read_as_it_is_told(folder: Path) -> None:
    with planned(options("t", format=TableFormat.CSV)) as plan:
        assert [column.name for column in plan.table.columns] == ["text", "n"]


def test_a_table_that_changed_meanwhile_is_not_joined_with_answers_to_what_it_was(folder: Path) -> None:
    with planned(options()) as plan:
        plan.unchanged()
        (folder / "t.csv").write_text("text,error\nz,b\n")
        with pytest.raises(Problem, match=r"t\.csv was changed meanwhile"):
            plan.unchanged()


def test_the_identity_follows_what_is_asked_and_nothing_else(folder: Path) -> None:
    def identity(**more: Any) -> dict[str, str]:
        with planned(options(**more)) as plan:
            return plan.identity()

    assert identity() == identity(column="other", batch_lines=3) == identity(out="o.parquet")
    others: tuple[dict[str, Any], ...] = (
        {"prompt": "{{ text }}."}, {"system": "x"}, {"limit": 1}, {"max_tokens": 3}, {"more": (("top_p", 1),)},
    )  # fmt: skip
    for more in others:
        assert identity(**more) != identity(), more
    (folder / "p").write_text("{{ text }}")
    assert identity(prompt_option="--prompt-file") == identity()


def test_parquet_without_pyarrow_names_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "penstock.cli.tables.parquet_table", raising=False)
    with pytest.raises(Problem, match=r"Parquet needs pyarrow.*pip install 'penstock\[data\]'"):
        open_table(Path("t.parquet"), "t.parquet", TableFormat.PARQUET)
    with pytest.raises(Problem, match="Parquet needs pyarrow"), planned(options(out="o.parquet")):
        pass
