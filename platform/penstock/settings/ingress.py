"""Waiting calls: the worker's ingress."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from penstock.settings.concern import Concern


class IngressSettings(Concern):
    """Where the ingress listens, and how many it lets in."""

    ingress_host: str = Field("127.0.0.1", description="Address that the ingress listens on.")
    ingress_port: int = Field(0, ge=0, le=65_535, description="Port that the ingress listens on; 0 finds a free one.")
    ingress_url: str = Field("", description="Where APIs reach the ingress, if it is not where it listens.")
    ingress_cert: Path | None = Field(None, description="Certificate of the ingress (PEM): it speaks TLS then.")
    ingress_key: Path | None = Field(None, description="The certificate's key (PEM).")
    ingress_calls: int = Field(
        2_000, ge=1, description="Waiting calls inside one ingress, in the engine or in line; more are 503."
    )
    call_wait_seconds: float = Field(30.0, description="A call that found no slot in the engine for so long is a 503.")
    call_pack_seconds: float = Field(
        0.005,
        ge=0,
        le=1,
        description="While two requests for embeddings or scores are in the engine, calls for more wait so long at "
        "most for others that go there with them; 0: each goes alone.",
    )
    ingress_grace_seconds: float = Field(20.0, description="A worker that ends waits so long for the calls inside.")
