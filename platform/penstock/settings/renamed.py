"""Settings that had another name: an old one in the environment is refused with a line that says the new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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
    "ENGINE_NAP_SECONDS": "ENGINE_IDLE_YIELD_SECONDS",
    "ENGINE_TURNS": "ENGINE_STEP_SHARE",
    "PULSE_SECONDS": "LOAD_REPORT_SECONDS",
    "WEBHOOK_LOOK_SECONDS": "WEBHOOK_POLL_SECONDS",
    "WEBHOOK_PLACES": "WEBHOOK_CONCURRENCY",
    "WEBHOOK_RECEIVER_PLACES": "WEBHOOK_RECEIVER_CONCURRENCY",
    "WEBHOOK_TENANT_PLACES": "WEBHOOK_TENANT_CONCURRENCY",
}


def refuse_old_names(environment: Mapping[str, str]) -> None:
    """Stop with one line if a setting stands there under the name it had before."""
    given = {name.upper() for name in environment}
    found = [f"PENSTOCK_{old} is now PENSTOCK_{new}" for old, new in RENAMED.items() if f"PENSTOCK_{old}" in given]
    if found:
        raise SystemExit(f"penstock: {'; '.join(found)}: set the new name instead.")
