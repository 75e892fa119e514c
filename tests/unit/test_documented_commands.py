"""Commands as the pages have them: each is one that there is, with options that it takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.reference import commands

ROOT = Path(__file__).parents[2]
_GENERATED = ROOT / "docs" / "cli.md"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted({*(ROOT / "docs").rglob("*.md")} - {_GENERATED})]
ALL: dict[str, Any] = dict(commands())
_BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")


def written(page: str) -> Iterator[list[str]]:
    """The words behind `penstock` of all commands on a page, in blocks and in sentences."""
    blocks = [line for block in _BLOCK.findall(page) for line in block.replace("\\\n", " ").splitlines()]
    spans = [" ".join(span.split()) for span in _SPAN.findall(_BLOCK.sub("", page))]
    for text in (*blocks, *spans):
        found = re.match(r"(?:\S+=\S+ )*(?:\S*/|\$)?penstock (.+)", text.strip())
        if found is None or "…" in text or "{{" in text:
            continue
        words = re.split(r"\s#\s|\s[|&>]|\)", found[1])[0]
        try:
            yield shlex.split(words)
        except ValueError:  # a quote that goes on
            continue


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_a_page_are_known_with_their_options(page: Path) -> None:
    for words in written(page.read_text()):
        name = next((name for name in (" ".join(words[:2]), words[0]) if name in ALL), None)
        if name is None:
            families = {known.partition(" ")[0] for known in ALL} | {"COMMAND"}
            assert words[0] in families or words[0].startswith("-"), words
            continue
        try:
            ALL[name].make_context("penstock", words[len(name.split()) :])
        except Exception as error:
            # Sentences name commands and options without what they need.
            if type(error).__name__ in ("NoSuchOption", "BadParameter"):
                pytest.fail(f"{words}: {error}")
