"""Servers: where they are, and what each process says of itself."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from penstock.domain.address import networks
from penstock.domain.shared_secret import SharedSecret
from penstock.settings.concern import Concern


class ServerSettings(Concern):
    """One process and the servers around it."""

    database_url: str = Field(
        "postgresql://postgres@127.0.0.1:5432/postgres", description="Postgres, the only truth (libpq URL)."
    )
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis or Valkey: hints only, may lose everything.")
    blob_url: str = Field("file:///var/lib/penstock/blobs", description="Blob store: file://, s3://, gs:// or az://.")
    scratch_dir: Path = Field(Path("/tmp"), description="Local disk for spooling input and assembling output.")
    runtime_dir: Path = Field(Path("/tmp/penstock"), description="Sockets and process records; keep the path short.")
    bootstrap_key: SecretStr | None = Field(None, description="API key of the first tenant, made valid at the start.")
    metrics_token: SecretStr | None = Field(
        None,
        description="Bearer token for /metrics; without it nobody may read them, unless they are open. "
        "By comma, to rotate it: all are accepted.",
    )
    metrics_open: bool = Field(False, description="Whoever reaches the API may read /metrics, without a token.")
    trusted_proxies: str = Field(
        "127.0.0.1,::1", description="Addresses or networks (by comma) whose X-Forwarded-For and -Proto APIs believe."
    )
    log_dir: Path = Field(Path("/tmp/penstock"), description="Logs of engines; each other process logs to its stdout.")
    log_level: str = Field("info", description="debug, info, warning or error.")
    failpoints: str = Field("", description="For tests only: places where this process dies, stops or waits.")
    api_connections: int = Field(10, description="Most Postgres connections of one API process.")
    api_turns: int = Field(12, ge=1, description="Requests that one API process works on at once, shared by tenants.")
    hint_timeout_seconds: float = Field(1.0, description="Longest wait for Redis when a hint is said.")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        networks(text)  # raises ValueError: a name that nobody compares would be believed in by its writer only
        return text

    @property
    def metrics_secret(self) -> SharedSecret:
        """What a scrape shows."""
        return SharedSecret.read(self.metrics_token.get_secret_value() if self.metrics_token else "")
