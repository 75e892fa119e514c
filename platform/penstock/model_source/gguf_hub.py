"""A GGUF on the Hugging Face hub: which file of a repository is meant, what it weighs, and how it comes here.

`ORG/NAME` where the repository has one GGUF, `ORG/NAME:Q4_K_M` (as llama.cpp's `-hf`) or a file's name where it has
several. A model in parts is one model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from penstock.model_source import hub
from penstock.model_source.download import Download
from penstock.model_source.gguf import SUFFIX
from penstock.model_source.no_model import NoModel

_PART: Final = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)")
_MOST_TOLD: Final = 5


def look(source: str, file: str | None, revision: str | None, environ: Mapping[str, str]) -> Download | None:
    """What is to be downloaded of this source, None if nothing is. Raises NoModel if there is no such file."""
    id, tag = _parted(source)
    place, revision = hub.hub(environ), revision or "main"
    if _cached(place, id, revision, file, tag):
        return None
    files = place.files(id, revision)
    blobs = place.repository(id) / "blobs"
    if files is None:
        return Download(id, blobs, None)
    download = Download(id, blobs, sum(files[name] for name in choose(id, files, file, tag)))
    download.check_room()
    return download


def fetch(source: str, file: str | None, revision: str | None, environ: Mapping[str, str]) -> Path:
    """The file here, its first part if it has several; it comes from the hub unless the cache has it.

    Raises NoModel, or OSError if the hub can't give it now.
    """
    import huggingface_hub

    id, tag = _parted(source)
    place, revision = hub.hub(environ), revision or "main"
    if cached := _cached(place, id, revision, file, tag):
        return cached[0]
    files = place.files(id, revision)
    if files is None:
        raise OSError(f"{place.endpoint} does not say now which files {id} has")
    names = choose(id, files, file, tag)
    first, *_ = [huggingface_hub.hf_hub_download(id, name, revision=revision) for name in names]
    return Path(first)


def choose(id: str, files: Collection[str], file: str | None, tag: str | None) -> list[str]:
    """The names of the file that is meant, several if it is in parts. Raises NoModel unless exactly one is meant."""
    found: dict[str, list[str]] = {}
    for name in sorted(name for name in files if name.endswith(SUFFIX) and "mmproj" not in name):
        found.setdefault(_PART.sub("", name), []).append(name)
    if not found:
        raise NoModel(f"{id} has no GGUF file, and llama.cpp reads nothing else.")
    if file:
        meant = [names for whole, names in found.items() if file in (whole, *names)]
    elif tag:
        meant = [names for whole, names in found.items() if whole.upper().endswith(f"{tag.upper()}{SUFFIX.upper()}")]
    else:
        meant = list(found.values())
    if len(meant) == 1:
        return meant[0]
    some = list(found)[:_MOST_TOLD]
    told = ", ".join(some) + (", …" if len(found) > len(some) else "")
    which = f"{len(meant) or 'no'} GGUF files" + (f" like {file or tag}" if file or tag else "")
    raise NoModel(f"{id} has {which}: name one of {told} with --engine-arg=--hf-file=FILE.")


def _parted(source: str) -> tuple[str, str | None]:
    id, _, tag = source.partition(":")
    if not hub.ID.fullmatch(id):
        raise NoModel(f"There is no file {source}: give a GGUF file or a Hugging Face id.")
    return id, tag or None


def _cached(place: hub.Hub, id: str, revision: str, file: str | None, tag: str | None) -> list[Path]:
    """The files in the cache, if what is meant is clear from those that are there, and all its parts are."""
    repository = place.repository(id)
    try:
        commit = (repository / "refs" / revision).read_text().strip()
    except OSError:
        commit = revision
    snapshot = repository / "snapshots" / commit
    names = [str(path.relative_to(snapshot)) for path in snapshot.rglob(f"*{SUFFIX}")]
    try:
        chosen = choose(id, names, file, tag)
    except NoModel:
        return []
    parts = re.search(r"-of-(\d{5})\.gguf$", chosen[0])
    if parts and len(chosen) != int(parts[1]):
        return []
    return [snapshot / name for name in chosen]
