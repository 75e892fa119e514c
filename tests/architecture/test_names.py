"""A name that went does not come back, and a class has a name of its own."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "platform").rglob("*.py"), *(ROOT / "workers").rglob("*.py")])

# Classes that may share a name, and why.
MAY_SHARE = {
    "Holder": "a process that leases are given to (domain), and the protocol of what a shutdown waits for (worker)",
    "Latencies": "what the budget looks at, and the part of it that the ingress writes: a protocol",
    "Resident": "a version that is awake in a pool (domain), and an adapter that is in an engine (worker)",
    "Waiting": "what waits for a version of a pool (domain), and why a batch makes no progress (views)",
    "Line": "a line of an input file, and the part of it that is asked: a protocol",
}


def went() -> set[str]:
    """The left column of the glossary's last table."""
    page = (ROOT / "docs" / "glossary.md").read_text()
    table = page.partition("## Names that went")[2]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", row))}


def classes() -> dict[str, list[str]]:
    """Where each class of the production code is; those that begin with _ are their file's own affair."""
    found = defaultdict(list)
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(file.relative_to(ROOT)))
    return dict(found)


def test_no_file_has_a_name_that_went() -> None:
    names = {name for name in went() if name.islower()}
    assert len(names) > 40
    assert [str(file.relative_to(ROOT)) for file in SOURCES if file.stem in names] == []


def test_no_class_has_a_name_that_went() -> None:
    names = {name for name in went() if name[0].isupper()}
    assert len(names) > 40
    assert {name: where for name, where in classes().items() if name in names} == {}


def test_no_two_classes_share_a_name() -> None:
    shared = {name: where for name, where in classes().items() if len(where) > 1 and name not in MAY_SHARE}
    assert shared == {}, "call each by the noun of its file"
