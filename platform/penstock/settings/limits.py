"""Limits on what a client can grow."""

from __future__ import annotations

from pydantic import Field

from penstock.settings.concern import GIB, KIB, MIB, Concern


class LimitSettings(Concern):
    """Limits of one request, upload or tenant."""

    max_file_bytes: int = Field(2 * GIB, description="Bytes of one uploaded file.")
    max_file_lines: int = Field(1_000_000, description="Requests in one batch.")
    max_line_bytes: int = Field(8 * MIB, description="Bytes of one line of a batch.")
    max_custom_id_bytes: int = Field(512, description="Bytes of a custom_id (UTF-8).")
    max_models_per_batch: int = Field(16, description="Different models in one batch.")
    max_json_bytes: int = Field(16 * MIB, description="Bytes of a JSON request body; a larger job goes as a file.")
    max_bodies_bytes: int = Field(256 * MIB, description="Bytes of such bodies that one API process reads at once.")
    max_job_requests: int = Field(10_000, description="Requests of one job; more of them go as a file.")
    max_inline_requests: int = Field(100, description="Requests of a job that is kept in rows, without files.")
    max_inline_bytes: int = Field(256 * KIB, description="Bytes of the requests of such a job.")
    max_window_seconds: int = Field(30 * 86_400, description="Longest completion_window.")
    max_errors_listed: int = Field(1_000, description="Validation errors that are listed; all are counted.")
    max_queued_tokens: int = Field(5_000_000_000, description="Estimated tokens that one tenant may have open.")
    max_wait_seconds: int = Field(60, description="Longest ?wait= of a long poll.")
    max_waits: int = Field(500, ge=1, description="Long polls of one tenant at one API process.")
    slow_body_seconds: float = Field(60.0, description="A client that sends or takes nothing for so long is given up.")
    max_connections: int = Field(
        10_000, ge=1, description="Connections to one API process; what waits makes room, then who comes is told 503."
    )
    keep_alive_seconds: int = Field(75, description="A connection to an API that nobody uses is closed after so long.")
    file_ttl_seconds: int = Field(30 * 86_400, description="Life of a batch input file, unless its upload says.")
