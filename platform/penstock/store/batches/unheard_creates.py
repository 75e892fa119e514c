"""Unheard creates: what SDKs made and got no full answer to, as far as is known; a retry takes one, once."""

from __future__ import annotations

from sqlalchemy import Connection, text

from penstock.domain.idempotency import SdkCreate

_LOCK = text("""
    -- A retry waits for the create that it repeats, if that is still at it; should its process die, so does this lock.
    select pg_advisory_xact_lock(
        hashtextextended('create ' || :tenant || ' ' || :api_key || ' ' || encode(:fingerprint, 'hex'), 0))""")
_NOTE = text("""
    insert into unheard_creates (made, tenant, api_key, fingerprint) values (:made, :tenant, :api_key, :fingerprint)""")
_SAME = "tenant = :tenant and api_key = :api_key and fingerprint = :fingerprint"
_UNSETTLED = text(f"""
    -- Its answer may be on its way at this moment.
    select exists (
        select from unheard_creates
        where {_SAME} and not is_cut and asked_at > clock_timestamp() - interval '1 second')""")
_TAKE = text(f"""
    -- The longest unheard first. What is taken is unheard again, until this answer has gone.
    update unheard_creates set asked_at = clock_timestamp(), is_cut = false
    where made = (
        select made from unheard_creates
        where {_SAME} and (is_cut or asked_at <= clock_timestamp() - interval '1 second')
          and asked_at > clock_timestamp() - interval '10 minutes'
        order by asked_at limit 1)
    returning made""")
_HEARD = text("delete from unheard_creates where tenant = :tenant and made = :made")
_CUT = text("update unheard_creates set is_cut = true where tenant = :tenant and made = :made")


def lock(conn: Connection, tenant: str, once: SdkCreate) -> None:
    """Let one create of this key and body at a time look and insert."""
    conn.execute(_LOCK, _values(tenant, once))


def note(conn: Connection, tenant: str, once: SdkCreate, made: str) -> None:
    """Note what is made, in the transaction that makes it."""
    conn.execute(_NOTE, _values(tenant, once) | {"made": made})


def is_unsettled(conn: Connection, tenant: str, once: SdkCreate) -> bool:
    """Whether an answer to such a create may be on its way at this moment."""
    return bool(conn.execute(_UNSETTLED, _values(tenant, once)).scalar_one())


def take(conn: Connection, tenant: str, once: SdkCreate) -> str | None:
    """What such a create made within ten minutes whose answer was not fully sent; None if there is none."""
    found: str | None = conn.execute(_TAKE, _values(tenant, once)).scalar()
    return found


def heard(conn: Connection, tenant: str, made: str) -> None:
    """The answer was sent in full."""
    conn.execute(_HEARD, {"tenant": tenant, "made": made})


def cut(conn: Connection, tenant: str, made: str) -> None:
    """The client had left before the answer."""
    conn.execute(_CUT, {"tenant": tenant, "made": made})


def _values(tenant: str, once: SdkCreate) -> dict[str, object]:
    return {"tenant": tenant, "api_key": once.api_key, "fingerprint": once.fingerprint}
