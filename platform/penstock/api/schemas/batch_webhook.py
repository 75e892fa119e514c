"""The webhook of one batch or job, as its create says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from penstock.api.http.body import Asked, Text
from penstock.domain.webhook import BATCH_EVENT_TYPES, WebhookRequest, check_secret
from penstock.service.webhooks import endpoints
from penstock.settings.webhooks import WebhookSettings

BatchEventType = Literal["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]


class BatchWebhook(Asked):
    """Where the events of this batch or job go, beside the tenant's endpoints."""

    url: Text
    secret: Text | None = Field(None, description="Your own; else one is made, and told in the answer to this create.")
    events: Annotated[list[BatchEventType], Field(min_length=1, max_length=len(BATCH_EVENT_TYPES))] | None = Field(
        None, description="All, unless told."
    )

    def wish(self, settings: WebhookSettings) -> WebhookRequest:
        """As the service takes it."""
        secret = None if self.secret is None else check_secret(self.secret, "webhook.secret")
        return endpoints.wish(self.url, self.events, secret, settings)
