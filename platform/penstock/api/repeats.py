"""Repeats: a create that may come twice, by an Idempotency-Key, or by the mark of an SDK that retries by itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import BackgroundTasks, Depends, Header, Request

from penstock.api.auth import access_of
from penstock.api.platform import Here, Platform
from penstock.domain.api_errors import BadRequest, Unavailable
from penstock.domain.idempotency import Idempotency, Once, SdkCreate
from penstock.service.core import unheard_creates

log = structlog.get_logger()


@dataclass(frozen=True)
class CreateHeaders:
    """What a create's headers say of its being repeated."""

    request: Request
    here: Platform
    background: BackgroundTasks
    key: str | None
    """Its Idempotency-Key."""
    retries: int | None
    """Which retry of its SDK it is, from 0; None: it is no SDK that counts them."""

    async def once(self, asked: bytes) -> Once | None:
        """How this create is known if it comes again; `asked` is all that it asks for, and of what.

        A retry of an SDK waits until it is known of the creates before it whether their answers were sent.
        """
        fingerprint = hashlib.sha256(asked).digest()
        if self.key is not None:
            return Idempotency(self.key, fingerprint)
        if self.retries is None:
            return None
        access = access_of(self.request)
        once = SdkCreate(access.key, fingerprint, is_retry=self.retries > 0)
        await unheard_creates.settle(self.here.db, access.tenant, once)
        return once

    def part(self, name: str) -> Once | None:
        """How one part of a request that makes several things is known if the request comes again with its key."""
        if self.key is None:
            return None
        part = hashlib.sha256(f"{self.key} {name}".encode()).hexdigest()
        return Idempotency(f"part-{part}", hashlib.sha256(name.encode()).digest())

    async def answering(self, once: Once | None, made: str) -> None:
        """What was made is about to be answered: note afterwards that it was, or now that its client has left."""
        if not isinstance(once, SdkCreate):
            return
        tenant = access_of(self.request).tenant
        if await self.request.is_disconnected():
            await self.here.db.run(unheard_creates.cut, tenant, made)
        else:
            self.background.add_task(self._heard, tenant, made)

    async def _heard(self, tenant: str, made: str) -> None:
        try:
            await self.here.db.autocommit(unheard_creates.heard, tenant, made)
        except Unavailable as error:  # a retry of an equal create within ten minutes would get this one
            log.warning("answer_not_noted", made=made, error=error.message)


async def _headers(
    request: Request,
    here: Here,
    background: BackgroundTasks,
    idempotency_key: Annotated[
        str | None,
        Header(description="Up to 255 characters of your choice: the same request with the same key is done once."),
    ] = None,
    x_stainless_retry_count: Annotated[
        str | None,
        Header(
            description="OpenAI's SDKs send it. Above 0, the request gets what one of the same API key with the same "
            "body made within ten minutes, if the answer to that was not fully sent; each once."
        ),
    ] = None,
) -> CreateHeaders:
    key, count = idempotency_key, x_stainless_retry_count or ""
    if key is not None and (not 0 < len(key) <= 255 or not key.isascii() or not key.isprintable()):
        raise BadRequest("Idempotency-Key must be 1 to 255 printable ASCII characters.", param="Idempotency-Key")
    retries = int(count) if count.isascii() and count.isdecimal() and len(count) < 6 else None
    return CreateHeaders(request, here, background, key, retries)


Repeats = Annotated[CreateHeaders, Depends(_headers)]
