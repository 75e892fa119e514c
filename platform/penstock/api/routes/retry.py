"""Retry over HTTP: lines of an ended batch or job are asked again, with other parameters where that helps."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Request
from pydantic import Field, StringConstraints

from penstock.api.auth import access_of
from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.platform import Platform
from penstock.api.repeats import CreateHeaders
from penstock.api.routes import webhooks
from penstock.api.schemas.batch_webhook import BatchWebhook
from penstock.api.schemas.terms import ExpiresAfter, LaneName, Metadata
from penstock.domain.accounts.access import Access
from penstock.domain.api_errors import BadRequest
from penstock.domain.nesting import MOST_LEVELS, is_too_deep
from penstock.domain.webhook import WebhookRequest
from penstock.domain.work.lane import Lane
from penstock.domain.work.retry import OF_THE_LINE, Retry
from penstock.service.intake.retry import RetryRequest
from penstock.service.intake.retry import retry as make
from penstock.service.views import batch_view
from penstock.service.views.batch_view import BatchView

_MAX_JSON_BYTES: Final = 1024 * 1024
_MOST_SET_FIELDS: Final = 32
_MOST_SET_BYTES: Final = 64 * 1024
_MOST_CUSTOM_IDS: Final = 10_000


class Chosen(Asked):
    """Which lines. Reasons add up; without any, every line without an answer. `custom_ids` narrows what they choose."""

    failed: bool | None = Field(None, description="Every line without an answer; for beside `answered`.")
    status_codes: list[Annotated[int, Field(ge=100, le=599)]] | None = Field(
        None, description="Lines that the engine refused with one of these.", max_length=100
    )
    error_codes: list[Annotated[Text, StringConstraints(max_length=200)]] | None = Field(
        None,
        description="Lines with one of these in `error.code`, or as `code` or `type` in the engine's refusal: "
        "`batch_expired`, `request_timeout`, `BadRequestError`, …",
        max_length=100,
    )
    groups: list[Annotated[Text, StringConstraints(max_length=110)]] | None = Field(
        None,
        description="Lines of these groups, by their `id` in the list of errors: `400:BadRequestError`; not `other`.",
        max_length=100,
    )
    answered: Literal["empty", "truncated"] | None = Field(
        None,
        description="Also answers that a limit on tokens cut: `truncated` all of them, `empty` those that say nothing.",
    )
    custom_ids: list[Annotated[Text, StringConstraints(min_length=1, max_length=512)]] | None = Field(
        None, description="Of all those only these lines.", min_length=1, max_length=_MOST_CUSTOM_IDS
    )


class CreateRetry(Asked):
    """What is repeated, and how. Without a body: every line without an answer, as it was."""

    lines: Chosen | None = None
    set: dict[str, Any] | None = Field(
        None,
        description="Merged shallowly into each line's body; null takes a field out: "
        '`{"max_tokens": 512, "stop": null}`. A limit on tokens, by any of its names (`max_tokens`, '
        "`max_completion_tokens`, `max_output_tokens`), becomes the one that counts in the line. Not "
        + ", ".join(sorted(OF_THE_LINE))
        + ".",
    )
    model: Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="Asks another model."
    )
    lane: LaneName | None = Field(None, description="The parent's, unless told otherwise; so are the next three.")
    completion_window: Text | None = Field(None, description="Counted from now.")
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None
    webhook: BatchWebhook | None = Field(
        None, description="Where the events of the retry go; the parent's stay its own."
    )

    def repeats(self) -> Retry:
        """Which lines, and what is changed in them; raise BadRequest."""
        lines = self.lines or Chosen()
        reasons = (lines.status_codes, lines.error_codes, lines.groups, lines.answered)
        changes = dict(self.set or {})
        check_changes(changes)
        if self.model is not None:
            changes["model"] = self.model
        return Retry(
            failed=lines.failed if lines.failed is not None else not any(reasons),
            status_codes=frozenset(lines.status_codes or ()),
            error_codes=frozenset(lines.error_codes or ()),
            groups=frozenset(lines.groups or ()),
            answered=lines.answered,
            custom_ids=None if lines.custom_ids is None else frozenset(lines.custom_ids),
            changes=changes,
        )

    def again(self, webhook: WebhookRequest | None, maker: Access) -> RetryRequest:
        """On which terms."""
        return RetryRequest(
            lane=Lane(self.lane) if self.lane else None,
            completion_window=self.completion_window,
            metadata=self.metadata,
            output_expires_seconds=self.output_expires_after.seconds if self.output_expires_after else None,
            webhook=webhook,
            allowed_models=maker.models,
            api_key=maker.key,
        )


def check_changes(changes: dict[str, Any]) -> None:
    """Raise BadRequest unless a line's body may be changed so."""
    for name in changes:
        if name in OF_THE_LINE:
            message = f"'set' can't change {name!r}: {'use the field model' if name == 'model' else 'it is the line'}."
            raise BadRequest(message, param=f"set.{name}")
    if is_too_deep(changes):
        raise BadRequest(f"'set' is too deep: {MOST_LEVELS} levels are allowed.", param="set")
    written = msgspec.json.encode(changes)
    if len(changes) > _MOST_SET_FIELDS or len(written) > _MOST_SET_BYTES:
        raise BadRequest(f"'set' has at most {_MOST_SET_FIELDS} fields and {_MOST_SET_BYTES} bytes.", param="set")
    if b"\\u0000" in written:  # Postgres keeps none in its JSON
        raise BadRequest("'set' holds a NUL character.", param="set")


async def retry(request: Request, here: Platform, tenant: str, kind: str, id: str, repeats: CreateHeaders) -> BatchView:
    """Make a batch or job that repeats lines of this one, once if this create comes twice."""
    access_of(request).check_budget()
    raw = await body.read(request, _MAX_JSON_BYTES)
    asked = body.check(CreateRetry, body.decode(raw)) if raw.strip() else CreateRetry()
    once = await repeats.once(b"retry" + id.encode() + b"\0" + raw)
    lines, wish = asked.repeats(), await webhooks.wished(here, asked.webhook)
    again = asked.again(wish, access_of(request))
    made = await here.db.run(make, tenant, kind, id, lines, again, once, here.settings)
    view = await here.db.autocommit(batch_view.view, tenant, kind, made.id, here.settings)
    view = await webhooks.seen(here, tenant, view, wish)
    await repeats.answering(once, made.id)
    return view
