"""Sent forms: rows of what sessions sent a little while ago, and what it was answered with."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, text

_TAKE = text("""
    -- What the session sent long ago goes, and the oldest of many: forms grow nothing.
    with gone as (
        delete from sent_forms where session = :session and form <> :form and (
            sent_at < clock_timestamp() - :kept
            or form = any(array(
                select form from sent_forms where session = :session order by sent_at desc, form offset :others))))
    insert into sent_forms (session, form) values (:session, :form)
    -- One that was sent long ago is a form like any other.
    on conflict (session, form) do update set sent_at = clock_timestamp(), done = false, answer = null
    where sent_forms.sent_at < clock_timestamp() - :kept""")
_FIND = text("select done, answer from sent_forms where session = :session and form = :form")
_KEEP = text("update sent_forms set done = true, answer = :answer where session = :session and form = :form")
_GIVE_BACK = text("delete from sent_forms where session = :session and form = :form and not done")


def take(conn: Connection, session: bytes, form: bytes, *, kept: timedelta, most: int) -> bool:
    """Note that a session sent this form; False if it did already, less than `kept` ago."""
    values = {"session": session, "form": form, "kept": kept, "others": most - 1}
    return bool(conn.execute(_TAKE, values).rowcount)


def find(conn: Connection, session: bytes, form: bytes) -> tuple[bool, bytes | None] | None:
    """Whether a form that was sent is done, and the answer as far as it is kept; None where none was sent."""
    row = conn.execute(_FIND, {"session": session, "form": form}).one_or_none()
    return None if row is None else (row.done, None if row.answer is None else bytes(row.answer))


def keep(conn: Connection, session: bytes, form: bytes, answer: bytes | None) -> None:
    """Note that a form is done, and its answer."""
    conn.execute(_KEEP, {"session": session, "form": form, "answer": answer})


def give_back(conn: Connection, session: bytes, form: bytes) -> None:
    """Forget a form that did nothing: it may be sent again."""
    conn.execute(_GIVE_BACK, {"session": session, "form": form})
