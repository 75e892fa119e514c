"""Servers: where they are, and what each process says of itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator

from penstock.domain.address import networks
from penstock.domain.shared_secret import SharedSecret
from penstock.settings.concern import Concern, must_be

_LEAST_KEY_CHARACTERS: Final = 16
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _address(like: str, *schemes: str) -> AfterValidator:
    def read(url: str) -> None:
        scheme, _, rest = url.partition("://")
        if scheme not in schemes or not rest:
            raise ValueError
        urlsplit(url).port  # noqa: B018 # raises ValueError where it is no number

    return must_be(f"an address like {like}", read)


def _parameters_of_libpq(url: str) -> str:
    """A misspelt parameter would be told at the first connection, by whoever makes it."""
    from psycopg import ProgrammingError  # it takes a while, and the default needs no look
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(url)
    except ProgrammingError as error:
        named = re.match('invalid URI query parameter: "([a-z_]*)"', str(error))
        why = f"without {named[1]}, which libpq does not know" if named else "that libpq can read"
        raise ValueError(f"an address {why}") from None
    return url


def _level(text: str) -> int:
    return _LEVELS.index(text.upper())


class ServerSettings(Concern):
    """One process and the servers around it."""

    database_url: Annotated[
        str,
        _address("postgresql://user@host:5432/name", "postgresql", "postgres"),
        AfterValidator(_parameters_of_libpq),
    ] = Field("postgresql://postgres@127.0.0.1:5432/postgres", description="Postgres, the only truth (libpq URL).")
    redis_url: Annotated[str, _address("redis://host:6379/0", "redis", "rediss", "unix", "redis+socket")] = Field(
        "redis://127.0.0.1:6379/0", description="Redis or Valkey: hints only, may lose everything."
    )
    blob_url: Annotated[
        str,
        _address(
            "file:///folder or s3://bucket/prefix",
            *("file", "memory", "s3", "s3a", "gs", "az", "abfs", "abfss", "https"),
        ),
    ] = Field("file:///var/lib/penstock/blobs", description="Blob store: file://, s3://, gs:// or az://.")
    scratch_dir: Path = Field(Path("/tmp"), description="Local disk for spooling input and assembling output.")
    runtime_dir: Path = Field(Path("/tmp/penstock"), description="Sockets and process records; keep the path short.")
    bootstrap_key: SecretStr | None = Field(None, description="API key of the first tenant, made valid at the start.")
    metrics_token: SecretStr | None = Field(
        None,
        description="Bearer token for /metrics; without it nobody may read them, unless they are open. "
        "By comma, to rotate it: all are accepted.",
    )
    metrics_open: bool = Field(False, description="Whoever reaches the API may read /metrics, without a token.")
    console: bool = Field(True, description="Serve the console, pages for people, at /console; `off`: the API alone.")
    # A name that nobody compares would be believed in by its writer only.
    trusted_proxies: Annotated[str, must_be("addresses or networks, by comma", networks)] = Field(
        "127.0.0.1,::1", description="Addresses or networks (by comma) whose X-Forwarded-For and -Proto APIs believe."
    )
    log_dir: Path = Field(Path("/tmp/penstock"), description="Logs of engines; each other process logs to its stdout.")
    log_level: Annotated[str, must_be("debug, info, warning or error", _level)] = Field(
        "info", description="debug, info, warning or error."
    )
    failpoints: str = Field("", description="For tests only: places where this process dies, stops or waits.")
    api_connections: int = Field(10, ge=1, description="Most Postgres connections of one API process.")
    api_turns: int = Field(12, ge=1, description="Requests that one API process works on at once, shared by tenants.")
    hint_timeout_seconds: float = Field(1.0, gt=0, description="Longest wait for Redis when a hint is said.")

    @field_validator("bootstrap_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        text = key.get_secret_value() if key else "x" * _LEAST_KEY_CHARACTERS
        if len(text) < _LEAST_KEY_CHARACTERS or not (text.isascii() and text.isprintable()) or " " in text:
            raise ValueError(f"{_LEAST_KEY_CHARACTERS} or more printable ASCII characters, without spaces")
        return key

    @property
    def metrics_secret(self) -> SharedSecret:
        """What a scrape shows."""
        return SharedSecret.read(self.metrics_token.get_secret_value() if self.metrics_token else "")
