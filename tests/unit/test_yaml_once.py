"""YAML and JSON of definitions: a key that is there twice is named, since the last one would win silently."""

from __future__ import annotations

import pytest

from penstock.cli.yaml_once import DoubledKey, load


@pytest.mark.parametrize(
    ("written", "key", "line"),
    [
        ("name: a\nkind: vote\nname: b\n", "name", 3),
        ("members:\n- {model: a}\n- {model: b, weight: 1, weight: 2}\n", "weight", 3),
        ('{"name": "a",\n "name": "b"}', "name", 2),
        ('name: a\n"name": b\n', "name", 2),
        ('1: a\n"1": b\n', "1", 2),
    ],
)
def test_a_key_that_is_there_twice_is_named_with_its_line(written: str, key: str, line: int) -> None:
    with pytest.raises(DoubledKey) as refused:
        load(written.encode())
    assert (refused.value.key, refused.value.line) == (key, line)


def test_what_is_merged_from_elsewhere_may_be_said_anew() -> None:
    written = b"a: &base {model: x, weight: 1}\nb: &more {<<: *base, weight: 2}\nc: {<<: *more, weight: 3}\n"
    assert load(written)["c"] == {"model": "x", "weight": 3}
    assert load(b'{"a": {"n": 1}, "b": [{"n": 1}, {"n": 1}]}') == {"a": {"n": 1}, "b": [{"n": 1}, {"n": 1}]}
