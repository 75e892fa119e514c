"""YAML, and JSON with it, in which no key of an object is there twice: the last one would win, and nobody be told."""

from __future__ import annotations

from typing import Any

import yaml


class DoubledKey(Exception):
    """A key is there twice in one object."""

    def __init__(self, key: str, line: int) -> None:
        self.key = key
        self.line = line
        """Of the second one, from 1."""
        super().__init__(key)


class _Once(yaml.SafeLoader):  # type: ignore[misc] # it has no types
    def compose_node(self, parent: Any, index: Any) -> Any:
        """As it was written, without aliases: of aliases of aliases a kilobyte says more than there is memory for."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "it has an alias", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        """As it is written; raises DoubledKey."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:  # as JSON has it, where 1 and "1" are one key
                raise DoubledKey(key.value, key.start_mark.line + 1)
            seen.add(key.value)
        return node


def load(data: bytes) -> Any:
    """What it says; raises DoubledKey, and yaml.YAMLError or ValueError for what can't be read."""
    return yaml.load(data, _Once)
