"""Terms: what every batch and job is asked with: how urgent it is, until when, and its caller's notes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from penstock.api.http.body import Asked, Text
from penstock.api.schemas.batch_webhook import BatchWebhook
from penstock.domain.accounts.access import Access
from penstock.domain.inference_endpoints import named
from penstock.domain.reuse import CacheMode
from penstock.domain.webhook import WebhookRequest
from penstock.domain.work.lane import Lane, noted
from penstock.domain.work.terms import OnInvalid, Terms

Metadata = Annotated[
    dict[
        Annotated[Text, StringConstraints(max_length=64)],
        Annotated[Text, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]
LaneName = Literal["priority", "standard", "flex"]


class ExpiresAfter(Asked):
    """When the output files go."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3_600, le=2_592_000)]


class CacheTerms(Asked):
    """What lines that have one answer (temperature 0 or a seed) do with the shared cache."""

    mode: Literal["on", "off", "refresh"] = Field(
        "on", description="`on`: looked up and kept. `off`: neither. `refresh`: asked anew, and kept."
    )
    ttl_seconds: Annotated[int, Field(ge=1, le=2_592_000)] | None = Field(None, description="Answers are kept so long.")


class Create(Asked):
    """What creates of batches and jobs have in common."""

    endpoint: Text
    completion_window: Text
    lane: LaneName | None = Field(
        None,
        description="How urgent it is. Left out, `metadata.priority` chooses, for OpenAI's SDKs can send only that: "
        "`priority` or `high`, `standard` or `normal`, `flex` or `low`; anything else there is a note of your own. "
        "`standard` unless told otherwise.",
    )
    metadata: Metadata | None = Field(None, description="Up to 16 pairs of your own.")
    output_expires_after: ExpiresAfter | None = None
    dedup: bool = Field(
        True,
        description="Equal lines that have one answer (temperature 0 or a seed) are asked once; the others get the "
        "same answer, marked `cached`, and their output tokens count as reused. Lines without one are always asked.",
    )
    plan: bool = Field(
        True,
        description="Lines are asked in the order that costs the engine least: those that begin alike side by side, "
        "long answers first. `false`: in file order. The output is in file order either way.",
    )
    cache: CacheTerms | None = Field(None, description="The shared cache; left out, as the tenant chose.")
    on_invalid: Literal["fail", "skip"] = Field(
        "fail",
        description="What becomes of it if validation refuses lines. `fail`: it fails, with all of them named in "
        "`errors`, before any line is asked. `skip`: it goes on without them; they count in `total` and `failed`, and "
        "stand in the error file with the code, `param` and `line` of their error. What is wrong with the whole file "
        "(`empty_file`, `too_many_tasks`, a limit) fails it in any case.",
    )
    trace: bool = Field(
        False,
        description="What each member of an ensemble said to each line goes to a file of its own (`trace_file_id`), in "
        "the order of the work. Lines of plain models are not in it.",
    )
    webhook: BatchWebhook | None = Field(None, description="Where its events go, beside your webhook endpoints.")

    def terms(self, webhook: WebhookRequest | None = None, maker: Access | None = None) -> Terms:
        """As the service takes them; `maker` is whose key asks."""
        metadata, expires = self.metadata or {}, self.output_expires_after
        return Terms(
            endpoint=named(self.endpoint),
            lane=Lane(self.lane) if self.lane else noted(metadata) or Lane.STANDARD,
            completion_window=self.completion_window,
            metadata=metadata,
            output_expires_seconds=expires.seconds if expires else None,
            dedup=self.dedup,
            plan=self.plan,
            cache=CacheMode(self.cache.mode) if self.cache else None,
            cache_ttl_seconds=self.cache.ttl_seconds if self.cache else None,
            on_invalid=OnInvalid(self.on_invalid),
            trace=self.trace,
            webhook=webhook,
            allowed_models=maker.models if maker else None,
            api_key=maker.key if maker else None,
        )
