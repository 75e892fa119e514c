"""Waiting calls: the API's side."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from penstock.domain.shared_secret import SharedSecret
from penstock.settings.concern import Concern


class CallSettings(Concern):
    """How calls find a worker, and how long they may take."""

    region: str = Field("", description="Where this process stands; calls go to workers of the same region first.")
    ingress_token: SecretStr | None = Field(
        None,
        description="Secret that API and workers share; without it workers take no waiting calls. "
        "By comma, to rotate it: the first is shown, all are accepted.",
    )
    ingress_ca: Path | None = Field(None, description="CA that signed the ingresses' certificates, if they speak TLS.")
    call_seconds: float = Field(600.0, gt=0, description="Longest time of one waiting call, from its head to its end.")
    wake_calls: int = Field(
        100, ge=0, description="Calls that wait in one API process for versions that are asleep in pools to wake."
    )
    call_tries: int = Field(3, ge=1, description="Workers that a call is offered to at most, before one takes it.")
    poison_call_seconds: float = Field(600.0, description="A call that met two engine deaths is refused for so long.")
    key_cache_seconds: float = Field(5.0, description="A key that waiting calls use is looked up again after so long.")
    key_stale_seconds: float = Field(600.0, description="While Postgres is away, keys seen this lately stay valid.")
    ingress_gone_seconds: float = Field(
        5.0, gt=0, description="An ingress whose last load report is older gets no calls."
    )
    load_report_seconds: float = Field(1.0, gt=0, description="A worker says how loaded it is this often.")

    @property
    def ingress_secret(self) -> SharedSecret:
        """What APIs show to ingresses."""
        return SharedSecret.read(self.ingress_token.get_secret_value() if self.ingress_token else "")
