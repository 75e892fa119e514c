"""How many connections Postgres needs room for: the page says what the processes open."""

from __future__ import annotations

import re
from pathlib import Path

from penstock.settings import Settings, connections

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def test_the_pages_table_and_sums_are_those_of_the_processes() -> None:
    row = {name: re.search(rf"^\| {name} \|.*\| (.+) \|$", PAGE, re.MULTILINE) for name in ("keeper", "io worker")}
    gpu = re.search(r"^\| gpu worker \|.*\| (.+) \|$", PAGE, re.MULTILINE)
    told = [int(found[1]) for found in (*row.values(), gpu) if found]
    assert told == [connections.KEEPER, connections.IO, connections.GPU]
    [formula] = re.findall(r"^    APIs × .*$", PAGE, re.MULTILINE)
    assert re.findall(r"\d+", formula) == [*map(str, told), str(connections.COMMANDS)]
    one, many = re.findall(r"One of each is (\d+); .* it is (\d+)", PAGE)[0]
    assert int(one) == connections.needed(Settings())
    assert int(many) == connections.needed(Settings(), apis=2, keepers=2, ios=2, gpus=10)


def test_an_api_that_is_told_another_number_counts_with_it() -> None:
    assert connections.needed(Settings(api_connections=25)) == connections.needed(Settings()) + 15
