"""A broom: one turn of every sweep, and what is left in the blob store and in rows that name blobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.desk import Desk, request
from store.world import World

from penstock.service.admin import sweep
from penstock.service.core.ids import blob_key, fresh
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import work
from penstock.settings import Settings
from penstock.store.batches import files
from penstock.store.work import counts

TWELVE = b"\n".join(request(f"q{n}") for n in range(1, 13))


def once(desk: Desk, **settings: Any) -> dict[str, int]:
    """One turn of every duty, with what is old being old at once."""
    old = {"unfinished_blob_seconds": 0, "pieces_seconds": 0} | settings
    return sweep.once(desk.world.db, desk.blobs, desk.world.settings.model_copy(update=old))


def blobs(settings: Settings) -> set[str]:
    """The keys of everything in the blob store, and of temporary files."""
    root = Path(settings.blob_url.removeprefix("file://"))
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def named(world: World) -> set[str]:
    """The keys of all blobs that a row names, intents included."""
    return {row.key for row in world.rows("""
        select blob_key as key from files union all select blob_key from segments where blob_key is not null
        union all select index_key from files where index_key is not null
        union all select blob_key from upload_parts union all select blob_key from intents""")}  # fmt: skip


def written(desk: Desk, size: int = 10) -> str:
    """A blob with its intent, as a writer leaves it that died before it published."""
    key = blob_key("acme", "files")
    desk.world.db.run(work.intend, key)
    desk.blobs.put(key, bytes(size))
    return key


def insert(key: str) -> Callable[[Transaction], bool]:
    """Publish a blob as a file."""
    return lambda tx: files.insert(
        tx.conn, "acme", id=fresh("file-"), purpose="batch", filename="f", bytes=10, sha256=bytes(32), blob_key=key,
        ttl=None,
    )  # fmt: skip


def counted(world: World) -> dict[str, int]:
    """What was swept, by kind."""
    return {name: count for name, count in world.db.run(lambda tx: counts.read(tx.conn)).items() if count}


def ended(desk: Desk) -> str:
    """A batch that was validated, answered and assembled."""
    batch = desk.validate(TWELVE)
    desk.answer(batch)
    desk.assemble(batch)
    return batch
