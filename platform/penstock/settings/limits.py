"""Limits on what a client can grow; what a tenant may is the default, which `penstock limits set` changes for one."""

from __future__ import annotations

from pydantic import Field

from penstock.settings.concern import GIB, KIB, MIB, TIB, Concern


class LimitSettings(Concern):
    """Limits of one request, upload or tenant."""

    max_file_bytes: int = Field(2 * GIB, ge=1, description="Bytes of one uploaded file.")
    max_file_lines: int = Field(1_000_000, ge=1, le=2**32 - 1, description="Requests in one batch.")
    max_line_bytes: int = Field(8 * MIB, ge=1, description="Bytes of one line of a batch.")
    max_custom_id_bytes: int = Field(512, ge=1, description="Bytes of a custom_id (UTF-8).")
    max_models_per_batch: int = Field(16, ge=1, le=65_535, description="Different models in one batch.")
    max_json_bytes: int = Field(
        16 * MIB, ge=1, description="Bytes of a JSON request body; a larger job goes as a file."
    )
    max_bodies_bytes: int = Field(
        256 * MIB, ge=1, description="Bytes of such bodies that one API process reads at once."
    )
    max_job_requests: int = Field(10_000, ge=1, description="Requests of one job; more of them go as a file.")
    max_inline_requests: int = Field(100, description="Requests of a job that is kept in rows, without files.")
    max_inline_bytes: int = Field(256 * KIB, description="Bytes of the requests of such a job.")
    max_window_seconds: int = Field(30 * 86_400, ge=60, description="Longest completion_window.")
    max_errors_listed: int = Field(1_000, ge=1, description="Validation errors that are listed; all are counted.")
    max_requests_per_minute: int | None = Field(None, ge=0, description="Requests of one tenant; none: no limit.")
    max_tokens_per_minute: int | None = Field(
        None, ge=0, description="Tokens of one tenant's waiting calls, asked and answered; none: no limit."
    )
    tenant_calls: int = Field(1_000, description="Waiting calls that one tenant may have open in one API process.")
    tenant_sequences: int = Field(
        131_072, ge=0, description="Texts (`n`, `best_of`, lists) that they ask for, in one API process."
    )
    max_estimates: int = Field(32, ge=0, description="Estimates of one tenant at once, in one API process.")
    max_upload_bytes: int = Field(64 * GIB, ge=0, description="Bytes of its uploads on their way, in one API process.")
    max_open_batches: int = Field(1_000_000, ge=0, description="Batches and jobs of one tenant that have not ended.")
    max_queued_lines: int = Field(100_000_000, ge=0, description="Lines of one tenant that have no answer yet.")
    max_queued_tokens: int = Field(5_000_000_000, description="Estimated tokens that one tenant may have open.")
    max_files: int = Field(1_000_000, ge=0, description="Files of one tenant, and uploads that are to be one.")
    max_stored_bytes: int = Field(4 * TIB, ge=0, description="Bytes of one tenant's files, and of parts of uploads.")
    max_webhook_endpoints: int = Field(20, description="Webhook endpoints of one tenant, those of batches aside.")
    max_api_keys: int = Field(1_000, ge=0, description="Valid keys of one tenant.")
    max_evals: int = Field(1_000, ge=0, description="Evals of one tenant.")
    max_eval_scorers: int = Field(10, ge=1, le=100, description="Scorers of one eval.")
    max_eval_runs: int = Field(
        10_000, ge=0, description="Runs of one tenant's evals, those that have ended among them."
    )
    max_open_eval_runs: int = Field(
        100, ge=0, description="Of these, runs that have not ended; as many comparisons that have not."
    )
    max_eval_comparisons: int = Field(
        10_000, ge=0, description="Comparisons of one tenant's runs; they go with their runs."
    )
    max_wait_seconds: int = Field(60, description="Longest ?wait= of a long poll.")
    max_waits: int = Field(500, ge=1, description="Long polls and streams of events of one tenant at one API process.")
    slow_body_seconds: float = Field(
        60.0, gt=0, description="A client that sends or takes nothing for so long is given up."
    )
    max_connections: int = Field(
        4_000, ge=1, description="Connections to one API process; what waits makes room, then who comes is told 503."
    )
    keep_alive_seconds: int = Field(75, description="A connection to an API that nobody uses is closed after so long.")
    file_ttl_seconds: int = Field(30 * 86_400, ge=1, description="Life of a batch input file, unless its upload says.")
