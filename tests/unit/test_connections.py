"""The page for operators says how many connections processes open, as the code has it."""

from __future__ import annotations

import re
from pathlib import Path

from penstock.domain.work import connections

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def test_the_table_of_processes_and_the_formula_have_the_numbers_of_the_code() -> None:
    in_table = {
        kind: int(re.findall(rf"^\| {name} \|.*\| (\d+) \|$", PAGE, re.MULTILINE)[0])
        for kind, name in {"keeper": "keeper", "io": "io worker", "gpu": "gpu worker"}.items()
    }
    assert in_table == connections.OF_KIND
    formula = " + ".join(
        f"{connections.OF_KIND[kind]} × {name}"
        for kind, name in {"keeper": "keepers", "io": "io workers", "gpu": "gpu workers"}.items()
    )
    assert formula in PAGE
