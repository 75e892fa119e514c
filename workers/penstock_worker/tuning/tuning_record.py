"""The record of a tuning: its rows in Postgres, if there is one, and its file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from penstock.domain.accounts.audit import CLI
from penstock.domain.api_errors import PenstockError, Unavailable
from penstock.domain.models.tuning import Tuning
from penstock.service.core.transaction import Database
from penstock.service.models import tunings
from penstock.store import revision
from penstock.store.engine import sync_engine


def in_database(url: str, points: list[Tuning]) -> str | None:
    """Keep these; why they can't be kept, None if they are."""
    db = Database(sync_engine(url, 1), lambda hints: None, CLI)
    try:
        if why := revision.why_not(db.engine):
            return why
        db.run(tunings.record, points)
    except Unavailable:
        return "the database is away"
    except PenstockError as error:
        return error.message
    finally:
        db.close()
    return None


def why_not_written(path: Path) -> str | None:
    """Why a file can't be written there, as far as can be known before; None if it can."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir():
        return f"{path} can't be written: " + ("it is a folder" if path.is_dir() else f"there is no folder {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        return f"{path} can't be written: permission denied"
    return None


def in_file(path: Path, document: dict[str, Any]) -> str | None:
    """Write the document; why it can't be written, None if it is."""
    try:
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        return f"{path} can't be written: {error.strerror}"
    return None
