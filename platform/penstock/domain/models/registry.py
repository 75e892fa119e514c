"""The registry: what `model` in a request stands for: `name`, `name@alias` or `name@v3`. A plain name is its stable.

A name without any version stands for itself: its work waits under it, and belongs to the first version that it gets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from penstock.domain.adapter import Adapter
from penstock.domain.ensembles.ensemble import Ensemble
from penstock.domain.models.alias import Split
from penstock.domain.models.version import STABLE, VersionState, label, number_of

_NONE: Final[Mapping[str, Split]] = {}


@dataclass(frozen=True, slots=True)
class Numbered:
    """What must be known of a version to send work to it."""

    queue: str
    state: VersionState
    base: str | None = None
    """Of an adapter: whose workers do its work."""
    digest: str | None = None
    """Of an adapter, if it is known."""


@dataclass(frozen=True, slots=True)
class ModelTarget:
    """What a request's model stands for."""

    name: str
    """The model's, without alias or version: what keys allow and reports count."""
    queue: str
    """Whose workers do it."""
    number: int | None
    """The version; None where the name has none yet."""
    adapter: Adapter | None = None
    """What they need beside their engine."""

    @property
    def version(self) -> str | None:
        """As answers say it."""
        return None if self.number is None else label(self.number)


class UnknownTarget(Exception):
    """A request names no model that there is. `code` and the message are for whoever asks."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


@dataclass(frozen=True)
class Registry:
    """All that is known of names, versions and aliases at one moment."""

    names: Collection[str]
    """Models that requests may name."""
    versions: Mapping[str, Mapping[int, Numbered]] = field(default_factory=dict)
    aliases: Mapping[str, Mapping[str, Split]] = field(default_factory=dict)
    ensembles: Mapping[str, Ensemble] = field(default_factory=dict)
    """By name, in the version that counts now. What one stands for is its members': no name of theirs resolves."""

    def split(self, asked: str) -> tuple[str, str, Split | int | None] | None:
        """The name, what stands after its @, and what that means; None if there is no such name."""
        if asked in self.names:
            return asked, STABLE, self.aliases.get(asked, _NONE).get(STABLE)
        name, at, after = asked.rpartition("@")
        if not at or name not in self.names:
            return None
        number = number_of(after)
        return name, after, self.aliases.get(name, _NONE).get(after) if number is None else number

    def ensemble(self, asked: str) -> Ensemble | None:
        """The ensemble of this name; None if it is no ensemble's."""
        return None if asked in self.names else self.ensembles.get(asked)

    def knows(self, asked: str) -> bool:
        """Whether this stands for anything, retired versions included."""
        if asked in self.ensembles:
            return True
        found = self.split(asked)
        if found is None:
            return False
        name, after, meant = found
        return after == STABLE or (meant in self.versions.get(name, {}) if isinstance(meant, int) else bool(meant))

    def resolve(self, asked: str, place: float) -> ModelTarget:
        """What this stands for, for whoever stands at this place of an alias (0 to below 100); raises UnknownTarget."""
        found = self.split(asked)
        if found is None:
            raise UnknownTarget("model_not_found", f"The model {asked[:200]!r} does not exist.")
        name, after, meant = found
        if isinstance(meant, Split):
            return self._target(name, meant.pick(place))
        if isinstance(meant, int):
            return self._numbered(name, meant)
        if after != STABLE:
            raise UnknownTarget("alias_not_found", self._no_alias(name, after))
        return self._target(name, 1) if 1 in self.versions.get(name, {}) else ModelTarget(name, name, None)

    def heaviest(self, asked: str) -> ModelTarget:
        """What it stands for mostly; raises UnknownTarget."""
        found = self.split(asked)
        if found is not None and isinstance(found[2], Split):
            weights = found[2].weights
            return self._target(found[0], max(weights, key=lambda one: (weights[one], -one)))
        return self.resolve(asked, 0)

    def others(self, asked: str, not_this: ModelTarget) -> list[ModelTarget]:
        """The other versions that an alias stands for, the heaviest first: for when nobody serves that one."""
        found = self.split(asked)
        if found is None or not isinstance(found[2], Split):
            return []
        weights = found[2].weights
        others = sorted((one for one in weights if one != not_this.number), key=lambda one: -weights[one])
        return [self._target(found[0], one) for one in others]

    @property
    def queues(self) -> set[str]:
        """Every name under which work is dealt out."""
        every = [one for known in self.versions.values() for one in known.values()]
        adapters = {one.queue for one in every if one.base}
        return {*(name for name in self.names if name not in adapters), *(one.base or one.queue for one in every)}

    def name_of(self, asked: str) -> str:
        """The model's name alone, also of what there is not."""
        found = self.split(asked)
        return found[0] if found else asked

    def _target(self, name: str, number: int) -> ModelTarget:
        found = self.versions[name][number]
        if found.base is None:
            return ModelTarget(name, found.queue, number)
        return ModelTarget(name, found.base, number, Adapter(found.queue, found.digest))

    def _numbered(self, name: str, number: int) -> ModelTarget:
        known = self.versions.get(name, {})
        if number not in known:
            there = ", ".join(label(one) for one, version in sorted(known.items()) if _asked(version))
            message = f"The model {name!r} has no version {label(number)}. There are: {there or 'none yet'}."
            raise UnknownTarget("version_not_found", message)
        if not _asked(known[number]):
            message = f"The version {name}@{label(number)} is retired: ask {name!r}, or another version."
            raise UnknownTarget("version_retired", message)
        return self._target(name, number)

    def _no_alias(self, name: str, alias: str) -> str:
        there = ", ".join(sorted(self.aliases.get(name, _NONE))) or "none yet"
        return f"The model {name!r} has no alias {alias[:40]!r}. There are: {there}; a version is asked as {name}@v1."


def _asked(version: Numbered) -> bool:
    return version.state is not VersionState.RETIRED
