"""Adapters: registered by an operator on the version that is their base; a worker loads them when they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock.domain.adapter import AdapterFault, AdapterSource
from penstock.domain.api_errors import BadRequest
from penstock.domain.engines import adapter_arguments
from penstock.domain.engines.profiles import PROFILES
from penstock.domain.models.alias import Split
from penstock.domain.models.registry import UnknownTarget
from penstock.domain.models.version import STABLE, Definition, Version, VersionState
from penstock.model_source import adapter_folder
from penstock.model_source.no_model import NoModel
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.service.models import registry
from penstock.service.models import versions as model_versions
from penstock.store.fleet import models
from penstock.store.models import aliases, versions


@dataclass(frozen=True)
class AdapterPlace:
    """Where an adapter comes from: its whole path or Hugging Face id, and its digest if its files were seen here."""

    source: str
    digest: str | None


def base(tx: Transaction, asked: str) -> Version:
    """The version that an adapter may hang on: `chat` (its heaviest), `chat@stable` or `chat@v2`; raise BadRequest."""
    now = registry.of(tx, asked)
    try:
        target = now.heaviest(asked)
    except UnknownTarget as error:
        raise BadRequest(f"The base: {error.message}", code=error.code, param="base") from None
    if target.number is None:
        message = f"The base {asked!r} has no version yet: start a worker of it, or add it with its source, first."
        raise BadRequest(message, code="version_not_found", param="base")
    found = model_versions.get(tx, target.name, target.number)
    if found.definition.base is not None:
        raise BadRequest(f"{found.name} is an adapter itself, and none hangs on another.", param="base")
    if found.state is VersionState.RETIRED:
        raise BadRequest(f"{found.name} is retired.", code="version_retired", param="base")
    _check_engine(found)
    return found


def _check_engine(found: Version) -> None:
    definition = found.definition
    profile = PROFILES.get(definition.engine)
    if profile is None or profile.adapters is None or profile.is_elsewhere:
        raise BadRequest(f"{found.name} runs on {definition.engine}, which loads no adapters here.", param="base")
    try:
        if adapter_arguments.slots(definition.arguments):
            return
    except ValueError as error:
        raise BadRequest(f"{found.name}: {error}", param="base") from None
    message = f"{found.name} is started without room for adapters: start a worker of it with --enable-lora."
    raise BadRequest(message, param="base")


def look(source: str, on: Version) -> AdapterPlace:
    """Check an adapter's files, if they can be seen here, against its base; raise BadRequest with one line.

    What looks like a path must be there. A Hugging Face id is looked at by the worker that loads it.
    """
    try:
        path = Path(source).expanduser()
        if not path.exists() and not source.startswith(("/", ".", "~")):
            return AdapterPlace(source, None)
        path = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, nobody's home, links in a circle
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise BadRequest(
            f"The source {source[:200]!r} can't be looked at: {(why or '').rstrip('.')}.", param="source"
        ) from None
    try:
        files = adapter_folder.check(path)
        most_rank = adapter_arguments.most_rank(on.definition.arguments)
        adapter_folder.check_fits(files, on.definition.source, most_rank, base_name=on.name)
        return AdapterPlace(str(files.folder), adapter_folder.digest(files, on.queue))
    except NoModel as error:
        raise BadRequest(str(error), param="source") from None
    except ValueError as error:  # of the base's arguments
        raise BadRequest(f"{on.name}: {error}", param="base") from None


def add(tx: Transaction, model: str, on: Version, place: AdapterPlace) -> Version:
    """Add an adapter as a version of `model`; the same again is the same version.

    The first version of a name becomes its `stable`. Raises BadRequest.
    """
    definition = Definition(place.source, on.definition.engine, base=on.queue)
    model_versions.check(model, definition)
    models.add(tx.conn, model, "added")
    if not versions.lock_name(tx.conn, model):
        raise BadRequest(f"{model!r} is a version itself.", param="model")
    if any(one.definition.base is None for one in versions.of_model(tx.conn, model)):
        raise BadRequest(
            f"{model!r} is a model with versions of its own: give the adapter another name.", param="model"
        )
    if versions.keep(tx.conn, [(on.model, on.number)]):
        raise BadRequest(f"{on.name} is retired.", code="version_retired", param="base")
    same = versions.by_digest(tx.conn, model, place.digest) if place.digest else None
    if same := same or versions.unserved(tx.conn, model, definition):
        return same
    made = versions.insert(tx.conn, model, definition, digest=place.digest, registered=False)
    audit.record(tx, audit.NOBODY, "model_version.added", made.name, source=place.source, base=on.name)
    if made.number == 1:
        versions.adopt(tx.conn, made)
    if not any(one.alias == STABLE for one in aliases.latest(tx.conn, model)):
        reason = "the first version that was added"
        aliases.change(tx.conn, model, STABLE, Split.of({made.number: 100}), actor=tx.actor, reason=reason)
    return made


def source(tx: Transaction, id: str) -> AdapterSource:
    """What a worker must know to load an adapter; raise AdapterFault."""
    found = versions.of_queue(tx.conn, id)
    if found is None or found.definition.base is None:
        raise AdapterFault(f"There is no adapter {id!r}.")
    return AdapterSource(id, found.definition.source, found.definition.base, found.digest)


def loaded(tx: Transaction, id: str, digest: str) -> None:
    """Note that a worker's engine has loaded an adapter, and its digest; raise AdapterFault for another one's."""
    found = versions.of_queue(tx.conn, id)
    if found is None:
        raise AdapterFault(f"There is no adapter {id!r}.")
    if found.digest not in (None, digest):
        raise AdapterFault(_changed(found.definition.source, found.name))
    if found.state is VersionState.DRAFT:
        other = None if found.digest else versions.by_digest(tx.conn, found.model, digest)
        if other is not None:
            raise AdapterFault(f"{found.name} is the same adapter as {other.name}: ask that one.")
        versions.served(tx.conn, found, digest)


def _changed(where: str, name: str) -> str:
    return f"The files of {where} are not those that {name} was made of: add them as a version of their own."
