"""Surroundings: what is looked at, by the environment of a process, or by the data folder of `penstock up`."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from penstock.settings import Settings, load
from penstock.stack import child_environment, layout, postgres
from penstock.stack.layout import Layout
from penstock.stack.problem import Problem


@dataclass(frozen=True)
class Surroundings:
    """One configuration."""

    settings: Settings
    layout: Layout | None
    """The data folder; None where the environment alone says where the servers are."""
    running: bool
    """Whether a `penstock up` runs on the data folder."""
    port: int
    """Of the API on this machine."""
    apis: int
    """How many API processes are to be reckoned with."""

    @property
    def has_servers(self) -> bool:
        """Whether its servers should answer: those of a data folder run with `penstock up` only."""
        return self.layout is None or self.running


def read_settings() -> tuple[Settings, list[str]]:
    """The settings, and warnings about what is misspelt. Raises Problem if one is no value."""
    warnings = io.StringIO()
    try:
        with contextlib.redirect_stderr(warnings):
            settings = load()
    except SystemExit as error:
        raise Problem(str(error.code).removeprefix("penstock: ")) from None
    prefix = "penstock: warning: "
    return settings, [line.removeprefix(prefix) for line in warnings.getvalue().splitlines()]


def of_environment(settings: Settings, *, port: int, apis: int) -> Surroundings:
    """What the PENSTOCK_… settings name."""
    return Surroundings(settings, None, False, port, apis)


def of_folder(settings: Settings, data: Path, environ: Mapping[str, str], *, port: int) -> Surroundings:
    """A data folder, and what of the environment goes with it; raise Problem if there is none."""
    place = layout.at(data)
    if not (place.data / "postgres").is_dir():
        raise Problem(f"{place.data} is no data folder of `penstock up`: nothing was started there yet.")
    runtime = layout.runtime_folder(place, environ)
    known: dict[str, Any] = {
        "database_url": postgres.url(runtime / "postgres"),
        "blob_url": place.blob_url,
        "scratch_dir": place.scratch,
        "runtime_dir": runtime,
        "log_dir": place.logs,
    }
    if settings.ingress_token is None and place.ingress_token_file.exists():
        known["ingress_token"] = SecretStr(place.ingress_token_file.read_text().strip())
    if not any(environ.get(name) for name in child_environment.SECRET_KEYS) and place.secret_keys_file.exists():
        known["secret_keys_file"] = place.secret_keys_file
    return Surroundings(settings.model_copy(update=known), place, _is_held(place), port, 1)


def _is_held(place: Layout) -> bool:
    """Whether another process has the folder's lock."""
    try:
        lock = os.open(place.data / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
