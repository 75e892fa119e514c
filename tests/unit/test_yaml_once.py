"""YAML and JSON of definitions: a key that is there twice is named, since the last one would win silently."""

from __future__ import annotations

import pytest
import yaml

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


def test_aliases_are_refused_since_aliases_of_aliases_say_more_than_there_is_memory_for() -> None:
    bomb = b"a0: &a0 [x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 30)
    )
    with pytest.raises(yaml.YAMLError, match="it has an alias"):
        load(bomb)


def test_equal_keys_of_several_objects_are_none_of_one() -> None:
    assert load(b'{"a": {"n": 1}, "b": [{"n": 1}, {"n": 1}]}') == {"a": {"n": 1}, "b": [{"n": 1}, {"n": 1}]}
