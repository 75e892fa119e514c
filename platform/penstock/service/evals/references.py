"""References of an eval, in the order of their custom_ids; what is wrong with them ends a run before it asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.blobs.store import Blobs
from penstock.domain.evals.run import Eval, RunFailed
from penstock.formats import references
from penstock.service.core.transaction import Database
from penstock.service.evals import file_lines
from penstock.service.evals.eval_work import Hold
from penstock.service.evals.sorted_records import SortedRecords
from penstock.settings.limits import LimitSettings
from penstock.store.batches import files

CODE: Final = "invalid_reference"
GONE: Final = "file_gone"


def key_of(db: Database, tenant: str, id: str) -> str:
    """Where a file's bytes are; raise RunFailed if it is gone."""
    file = db.run(lambda tx: files.get(tx.conn, tenant, id))
    if file is None:
        raise RunFailed(GONE, f"The file {id} was deleted or has expired.")
    return file.blob_key


def read(
    db: Database, blobs: Blobs, one: Eval, folder: Path, hold: Hold, settings: LimitSettings
) -> SortedRecords | None:
    """By custom_id the JSON that is expected; None if the lines of the input say it themselves. Raises RunFailed."""
    if one.reference_file is None:
        return None
    found = SortedRecords(folder, "references")
    key = key_of(db, one.tenant, one.reference_file)
    for number, line in file_lines.read(blobs, key, hold, settings, code=CODE, of=" of the references"):
        try:
            custom_id, expected = references.read(line)
        except ValueError as error:
            raise RunFailed(CODE, f"Line {number} of the references: {error}.") from None
        found.add(custom_id.encode(), expected)
        if found.count > settings.max_file_lines:
            raise RunFailed(CODE, f"The references have more than {settings.max_file_lines} lines.")
    if not found.count:
        raise RunFailed(CODE, "The references have no line.")
    return found


def unique(found: SortedRecords, hold: Hold) -> Iterator[tuple[bytes, bytes]]:
    """The same, one by one; raise RunFailed if two are of one line."""
    before: bytes | None = None
    for key, expected in found:
        hold.tick()
        if key == before:
            raise RunFailed(CODE, f"The references have custom_id {key.decode()[:64]!r} twice.")
        before = key
        yield key, expected
