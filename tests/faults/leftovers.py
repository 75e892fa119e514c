"""Leftovers: blobs and rows know each other (I8), and a sweep leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

_NAMED = """
    select blob_key from files
    union select index_key from files where index_key is not null
    union select blob_key from upload_parts
    union select blob_key from segments where blob_key is not null
    union
    -- The plan of a batch, and what its judges are asked: until a sweep has taken up what it left.
    select plan.key from batches b
    join lateral (select b.plan_key union all select plan_key from slices where batch = b.id) plan(key)
      on plan.key is not null
    where b.state not in ('completed', 'cancelled', 'expired', 'failed')
       or exists (select from leftovers l where l.batch = b.id)
    union select input_key from batches where input_key is not null"""
_NEEDED = """
    select blob_key from files union select blob_key from upload_parts
    union select index_key from files where index_key is not null
    union select blob_key from segments where blob_key is not null"""


def blobs_that_must_not_be(database: psycopg.Connection[Any], blobs: Path) -> list[str]:
    """Blobs that no row and no intent names, and rows whose blob is not there."""
    named, needed, intended = (
        {key for (key,) in database.execute(query.encode())}
        for query in (_NAMED, _NEEDED, "select blob_key from intents")
    )
    # On disk, a write that was cut leaves `<key>#<n>`, which goes together with the key.
    there = {str(path.relative_to(blobs)).partition("#")[0] for path in blobs.rglob("*") if path.is_file()}
    wrong = [f"nobody will ever sweep the blob {key}" for key in sorted(there - named - intended)]
    return wrong + [f"the blob {key} is not there, and a row names it" for key in sorted(needed - there)]


def leftovers(database_url: str, blobs: Path, scratch: Path) -> list[str]:
    """What a finished sweep should have taken: intents, what only they name, and files on scratch."""
    with psycopg.connect(database_url, autocommit=True) as database:
        intents = [key for (key,) in database.execute("select blob_key from intents")]
        wrong = blobs_that_must_not_be(database, blobs)
    wrong += [f"an intent outlives the sweep: {key}" for key in intents]
    return wrong + [f"left on scratch: {path}" for path in sorted(scratch.rglob("*")) if path.is_file()]
