"""The local pool: several models of `penstock up` that take turns on this machine, as a pool with one host."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from penstock.domain.api_errors import Conflict, NotFound, PenstockError, Unavailable
from penstock.domain.engines.profile import EngineProfile
from penstock.domain.engines.profiles import LLAMACPP
from penstock.domain.models.version import Definition, Version, VersionState
from penstock.domain.pools.pool import ResidentState
from penstock.model_source.definition import defined_here
from penstock.service.core.transaction import Database, Transaction
from penstock.service.models import versions
from penstock.service.pools import pools
from penstock.settings.dispatch import DispatchSettings
from penstock.stack.chosen_model import parse_model
from penstock.stack.problem import Problem

NAME: Final = "local"
_MOST_VERSIONS: Final = 1_000


@dataclass(frozen=True)
class LocalModel:
    """A model that shares this machine with others."""

    name: str
    source: str
    engine: str
    arguments: tuple[str, ...] = ()

    @property
    def definition(self) -> Definition:
        """As it is kept."""
        return defined_here(self.source, self.engine, self.arguments)


@dataclass(frozen=True)
class Named:
    """What one `--model` names; without a source it is a model that the project makes."""

    name: str
    source: str | None
    engine: str


def named(models: Sequence[str], profile: EngineProfile) -> list[Named]:
    """Read one `--model` or several. Of several a GGUF file is llama.cpp's, whatever the others are. Raises Problem."""
    found = []
    for text in models:
        alone = len(models) == 1 or not text.endswith(".gguf")
        name, source = parse_model(text, profile if alone else LLAMACPP)
        found.append(Named(name, source, profile.name if alone else LLAMACPP.name))
    if len({one.name for one in found}) < len(found):
        raise Problem("Two models have the same name: say --model NAME=….")
    if len(found) > 1 and profile.is_elsewhere:
        raise Problem("Engines that run elsewhere take no turns on this machine: start a worker for each.")
    return found


def make(db: Database, models: Sequence[LocalModel], awake: int, settings: DispatchSettings) -> None:
    """Let the pool be of these models, so many of them awake at once, the first of them soon. Raises Problem."""
    try:
        db.run(_make, models, awake, settings)
    except PenstockError as error:
        raise Problem(error.message) from None


def _make(tx: Transaction, models: Sequence[LocalModel], awake: int, settings: DispatchSettings) -> None:
    """What is started here is what is asked here."""
    found = [_version(tx, model, settings) for model in models]
    for version in found:
        versions.promote_here(tx, version, socket.gethostname(), timedelta(seconds=settings.worker_gone_seconds))
    members = [pools.WantedMember(version.name, on_demand=True) for version in found]
    terms = {"awake": min(awake, len(models))}
    try:
        pools.get(tx, NAME)
    except NotFound:
        pools.create(tx, NAME, members, terms=terms)
    else:
        pools.change(tx, NAME, {"members": members, "terms": terms})
    for version in found:  # whatever kept it from being started may be over
        pools.unfit(tx, NAME, version.queue, None)
    with suppress(Conflict):  # others are pinned there
        pools.wake(tx, NAME, members[0].version)


class FirstAwake:
    """Waits until one of the models is awake."""

    def __init__(self, db: Database, settings: DispatchSettings, say: Callable[[str], None]) -> None:
        self._db = db
        self._settings = settings
        self._say = say
        self._told: set[str] = set()

    def look(self) -> bool:
        """Whether one is by now; who can't be started is said, and the next is woken. Raises Problem if none can be."""
        try:
            view = self._db.run(pools.view, NAME, self._settings)
            members = view.pool.members
            fit = [one for one in members if not one.unfit_reason]
            for one in members:
                if one.unfit_reason and one.queue not in self._told:
                    self._told.add(one.queue)
                    self._say(f"{one.version.name} can't be started: {one.unfit_reason}")
            if not fit:
                raise Problem("None of the models can be started.")
            states = {view.state_of(one.queue) for one in fit}
            if ResidentState.AWAKE in states:
                return True
            if ResidentState.WAKING not in states and not any(one.wake_asked_at for one in fit):
                with suppress(Conflict):
                    self._db.run(pools.wake, NAME, fit[0].version.name)
        except Unavailable:  # Postgres is started again
            pass
        return False


def _version(tx: Transaction, model: LocalModel, settings: DispatchSettings) -> Version:
    """The version that is started so, made if there is none."""
    wanted = replace(model.definition, base=None)
    try:
        known = versions.page(tx, settings, model=model.name, limit=_MOST_VERSIONS)
    except NotFound:  # nobody knows the model yet
        known = []
    for view in reversed(known):
        if view.version.definition == wanted and view.version.state is not VersionState.RETIRED:
            return view.version
    return versions.add(tx, model.name, wanted)
