"""Webhooks: endpoints, attempts, how many at once, and where anything may be sent that a tenant names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from penstock.domain.address import networks, ports
from penstock.settings.concern import Concern, must_be


class WebhookSettings(Concern):
    """Limits and times of deliveries."""

    secret_keys: SecretStr | None = Field(
        None, description="Keys of webhook secrets, by comma: the first encrypts, all decrypt (`penstock secrets`)."
    )
    secret_keys_file: Path | None = Field(None, description="More such keys: a file with one a line.")
    webhook_timeout_seconds: float = Field(15.0, gt=0, description="Longest time of one attempt to deliver an event.")
    webhook_waits_seconds: tuple[float, ...] = Field(
        (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400),
        description="Waits before each attempt, from the one before (JSON); after the last one it is given up.",
        min_length=1,
    )
    webhook_poll_seconds: float = Field(0.5, gt=0, description="An io worker looks for due deliveries this often.")
    webhook_concurrency: int = Field(256, ge=1, description="Deliveries that one io worker sends at once.")
    webhook_tenant_concurrency: int = Field(64, ge=1, description="Of these, deliveries of one tenant.")
    webhook_receiver_concurrency: int = Field(
        16, ge=1, description="Of these, deliveries to one receiver (host and port)."
    )
    webhook_answer_kept_bytes: int = Field(512, description="Bytes of a receiver's answer that are read, and logged.")


class OutboundSettings(Concern):
    """Networks and ports that may be reached."""

    outbound_allow: Annotated[str, must_be("networks (CIDRs), by comma", networks)] = Field(
        "", description="Networks of your own (CIDRs, by comma) that it may reach, on any port, with http too."
    )
    outbound_ports: Annotated[str, must_be("ports, by comma", ports)] = Field(
        "443,80", description="Ports that it may reach elsewhere, by comma."
    )
    outbound_http: bool = Field(False, description="Whether http:// without TLS may be sent to elsewhere too.")
