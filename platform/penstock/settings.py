"""Settings: every knob and limit of the platform, with its default, its unit and its reason.

Each is read from the environment as PENSTOCK_<NAME>. Only entry points (cli, api factory, keeper, worker main)
read them and pass values down. `docs/limits.md` is generated from this table by `penstock settings --markdown`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Settings(BaseSettings):
    """One frozen object."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", frozen=True, extra="ignore")

    # Where the servers are.
    database_url: str = Field(
        "postgresql://postgres@127.0.0.1:5432/postgres", description="Postgres, the only truth (libpq URL)."
    )
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis or Valkey: hints only, may lose everything.")
    blob_url: str = Field("file:///var/lib/penstock/blobs", description="Blob store: file://, s3://, gs:// or az://.")
    scratch_dir: Path = Field(Path("/tmp"), description="Local disk for spooling input and assembling output.")
    runtime_dir: Path = Field(Path("/tmp/penstock"), description="Sockets and process records; keep the path short.")
    bootstrap_key: SecretStr | None = Field(None, description="API key of the first tenant, made valid at the start.")
    metrics_token: SecretStr | None = Field(
        None, description="Bearer token for /metrics; without it only loopback may read them."
    )
    log_dir: Path = Field(Path("/tmp/penstock"), description="Logs of engines; each other process logs to its stdout.")
    log_level: str = Field("info", description="debug, info, warning or error.")
    failpoints: str = Field("", description="For tests only: places where this process dies, stops or waits.")

    # Limits on what a client can grow.
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
    slow_body_seconds: float = Field(60.0, description="A client that sends or takes nothing for so long is given up.")
    keep_alive_seconds: int = Field(75, description="A connection to an API that nobody uses is closed after so long.")
    file_ttl_seconds: int = Field(30 * 86_400, description="Life of a batch input file, unless its upload says.")

    # Leases.
    lease_seconds: float = Field(20.0, description="A lease lives this long after a beat, by the database's clock.")
    beat_seconds: float = Field(5.0, description="A process names the leases it holds this often.")
    close_grace_seconds: float = Field(5.0, description="A holder in a closing batch waits this long for answers.")

    # Work.
    flush_seconds: float = Field(1.0, description="Answers are recorded at least this often.")
    line_timeout_seconds: float = Field(
        600.0, description="Longest time one line may take in the engine, over all its tries."
    )
    engine_stuck_seconds: float = Field(
        120.0, description="An engine with requests in it that makes no step for this long is hung, and replaced."
    )
    line_tries: int = Field(
        3, description="A line that meets 429, 5xx or a broken connection is asked this often in all."
    )
    slice_seconds: float = Field(20.0, description="Engine work of one slice, by what the model's workers measured.")
    slice_tokens: int = Field(60_000, description="Estimated tokens of one slice where no worker has measured itself.")
    slice_lines: int = Field(4_096, description="Most lines of one slice.")
    slice_bytes: int = Field(16 * MIB, description="Most bytes of one slice: a worker holds several in memory.")
    small_job_lines: int = Field(256, description="Most lines of small jobs that a worker takes at once, as one slice.")
    expected_output_tokens: int = Field(256, description="Tokens of an answer that nothing is known about.")
    bytes_per_token: float = Field(4.0, description="Bytes of body per input token until a model's own is measured.")
    ready_per_worker: int = Field(4, description="Slices of a lane that are hinted ahead for each live worker.")

    poll_seconds: float = Field(3.0, description="A worker that heard no hint for this long asks Postgres (jittered).")

    # The keeper.
    tick_seconds: float = Field(1.0, description="The keeper looks at everything this often.")
    hint_again_seconds: float = Field(5.0, description="Work that nobody took is hinted again after this long.")
    worker_gone_seconds: float = Field(20.0, description="A worker that has not beaten for this long is not live.")

    # What is left over, and how long it is kept.
    sweep_seconds: float = Field(60.0, description="The keeper looks for what may go this often.")
    unfinished_blob_seconds: float = Field(86_400, description="A blob that nobody published for so long is given up.")
    pieces_seconds: float = Field(3_600, description="An ended batch keeps its plan and segments so long, to look at.")
    events_seconds: float = Field(30 * 86_400, description="Events, and deliveries that are over, are kept this long.")
    trail_seconds: float = Field(30 * 86_400, description="State moves are kept this long, a day at least: an audit.")

    # Waiting calls: the API's side.
    region: str = Field("", description="Where this process stands; calls go to workers of the same region first.")
    ingress_token: SecretStr | None = Field(
        None, description="Secret that API and workers share; without it workers take no waiting calls."
    )
    ingress_ca: Path | None = Field(None, description="CA that signed the ingresses' certificates, if they speak TLS.")
    tenant_calls: int = Field(1_000, description="Waiting calls that one tenant may have open in one API process.")
    call_seconds: float = Field(600.0, description="Longest time of one waiting call, from its head to its end.")
    call_tries: int = Field(3, description="Workers that a call is offered to at most, before one takes it.")
    poison_call_seconds: float = Field(600.0, description="A call that met two engine deaths is refused for so long.")
    key_cache_seconds: float = Field(5.0, description="A key that waiting calls use is looked up again after so long.")
    key_stale_seconds: float = Field(600.0, description="While Postgres is away, keys seen this lately stay valid.")
    isolate_prefix_caches: bool = Field(
        True, description="No tenant's answer time tells what another asked: prefix caches are salted by tenant."
    )

    # Waiting calls: the worker's ingress.
    ingress_host: str = Field("127.0.0.1", description="Address that the ingress listens on.")
    ingress_port: int = Field(0, description="Port that the ingress listens on; 0 finds a free one.")
    ingress_url: str = Field("", description="Where APIs reach the ingress, if it is not where it listens.")
    ingress_cert: Path | None = Field(None, description="Certificate of the ingress (PEM): it speaks TLS then.")
    ingress_key: Path | None = Field(None, description="The certificate's key (PEM).")
    ingress_calls: int = Field(
        2_000, description="Waiting calls inside one ingress, in the engine or in line; more are 503."
    )
    call_wait_seconds: float = Field(30.0, description="A call that found no slot in the engine for so long is a 503.")
    ingress_grace_seconds: float = Field(20.0, description="A worker that ends waits so long for the calls inside.")
    load_report_seconds: float = Field(1.0, description="A worker says how loaded it is this often.")
    ingress_gone_seconds: float = Field(5.0, description="An ingress whose last load report is older gets no calls.")

    # How many batch lines may be in the engine.
    budget_seconds: float = Field(1.0, description="The budget of batch lines in the engine is looked at this often.")
    kv_high: float = Field(0.9, description="Part of the KV cache above which the batch budget shrinks.")

    # The shared cache.
    cache_url: str = Field("", description="Redis or Valkey that answers are kept in, if not the hints' own.")
    cache_bytes: int = Field(64 * MIB, description="All kept answers together, so that hints always find room.")
    cache_answer_bytes: int = Field(MIB, description="A larger answer is not kept.")
    cache_ttl_seconds: int = Field(86_400, description="An answer is kept for so long, unless its request says.")
    cache_timeout_seconds: float = Field(0.1, description="Longest wait for the cache; then it is a miss.")

    # The order of work.
    promoted_share: float = Field(0.2, description="Most of a lane's tokens that work promoted into it may take.")
    promote_slack_seconds: float = Field(30.0, description="A batch with less slack than this rises by one lane.")

    engine_gpus: int = Field(
        0, description="GPUs that a second of the engine is charged as; 0: tensor × pipeline × data parallel size."
    )

    # What is sent to where a tenant says.
    outbound_allow: str = Field(
        "", description="Networks of your own (CIDRs, by comma) that it may reach, on any port, with http too."
    )
    outbound_ports: str = Field("443,80", description="Ports that it may reach elsewhere, by comma.")
    outbound_http: bool = Field(False, description="Whether http:// without TLS may be sent to elsewhere too.")
    # Webhooks.
    max_webhook_endpoints: int = Field(20, description="Webhook endpoints of one tenant, those of batches aside.")
    webhook_timeout_seconds: float = Field(15.0, description="Longest time of one attempt to deliver an event.")
    webhook_waits_seconds: tuple[float, ...] = Field(
        (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400),
        description="Waits before each attempt, from the one before (JSON); after the last one it is given up.",
        min_length=1,
    )
    webhook_poll_seconds: float = Field(0.5, description="An io worker looks for due deliveries this often.")
    webhook_concurrency: int = Field(256, description="Deliveries that one io worker sends at once.")
    webhook_tenant_concurrency: int = Field(64, description="Of these, deliveries of one tenant.")
    webhook_receiver_concurrency: int = Field(16, description="Of these, deliveries to one receiver (host and port).")
    webhook_answer_kept_bytes: int = Field(512, description="Bytes of a receiver's answer that are read, and logged.")

    # Connections, per process.
    api_connections: int = Field(10, description="Most Postgres connections of one API process.")
    hint_timeout_seconds: float = Field(1.0, description="Longest wait for Redis when a hint is said.")


# What a setting was called before. Left unread, an old name would silently mean the default.
RENAMED: Final = {
    "BUNDLE_LINES": "SMALL_JOB_LINES",
    "CONTROL_SECONDS": "BUDGET_SECONDS",
    "DOOR_CA": "INGRESS_CA",
    "DOOR_CALLS": "INGRESS_CALLS",
    "DOOR_CERT": "INGRESS_CERT",
    "DOOR_GONE_SECONDS": "INGRESS_GONE_SECONDS",
    "DOOR_GRACE_SECONDS": "INGRESS_GRACE_SECONDS",
    "DOOR_HOST": "INGRESS_HOST",
    "DOOR_KEY": "INGRESS_KEY",
    "DOOR_PORT": "INGRESS_PORT",
    "DOOR_TOKEN": "INGRESS_TOKEN",
    "DOOR_URL": "INGRESS_URL",
    "PULSE_SECONDS": "LOAD_REPORT_SECONDS",
    "WEBHOOK_LOOK_SECONDS": "WEBHOOK_POLL_SECONDS",
    "WEBHOOK_PLACES": "WEBHOOK_CONCURRENCY",
    "WEBHOOK_RECEIVER_PLACES": "WEBHOOK_RECEIVER_CONCURRENCY",
    "WEBHOOK_TENANT_PLACES": "WEBHOOK_TENANT_CONCURRENCY",
}


def load() -> Settings:
    """Read the environment; an old name in it ends the process with a line that says the new one."""
    refuse_old_names(os.environ)
    return Settings()


def refuse_old_names(environment: Mapping[str, str]) -> None:
    """Stop with one line if a setting stands there under the name it had before."""
    given = {name.upper() for name in environment}
    found = [f"PENSTOCK_{old} is now PENSTOCK_{new}" for old, new in RENAMED.items() if f"PENSTOCK_{old}" in given]
    if found:
        raise SystemExit(f"penstock: {'; '.join(found)}: set the new name instead.")
