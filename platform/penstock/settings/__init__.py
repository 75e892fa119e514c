"""Settings: every knob and limit of the platform, with its default, its unit and its reason, by concern.

Each is read from the environment as PENSTOCK_<NAME>. Only entry points (cli, api factory, keeper, worker main)
read them and pass values down. `docs/limits.md` is generated from them by `penstock settings --markdown`.
"""

from __future__ import annotations

import os
import sys

from pydantic import ValidationError
from pydantic_settings import SettingsError

from penstock.settings import misread
from penstock.settings.cache import CacheSettings
from penstock.settings.calls import CallSettings
from penstock.settings.dispatch import DispatchSettings
from penstock.settings.engine import EngineSettings
from penstock.settings.ingress import IngressSettings
from penstock.settings.leases import LeaseSettings
from penstock.settings.limits import LimitSettings
from penstock.settings.lines import LineSettings
from penstock.settings.plans import PlanSettings
from penstock.settings.pool_host import PoolHostSettings
from penstock.settings.servers import ServerSettings
from penstock.settings.sweep import SweepSettings
from penstock.settings.webhooks import OutboundSettings, WebhookSettings


class Settings(
    WebhookSettings,
    OutboundSettings,
    CacheSettings,
    IngressSettings,
    CallSettings,
    SweepSettings,
    DispatchSettings,
    PlanSettings,
    PoolHostSettings,
    EngineSettings,
    LineSettings,
    LeaseSettings,
    LimitSettings,
    ServerSettings,
):
    """One frozen object: one of each concern. Fields come in the order of the bases, the last one first."""


def load() -> Settings:
    """Read the environment; an old name or a value that is none ends the process with a line that says what to set."""
    misread.refuse_old_names(os.environ)
    try:
        found = Settings()
    except ValidationError as error:
        raise SystemExit(f"penstock: {misread.told(error, Settings)}.") from None
    except SettingsError as error:
        raise SystemExit(f"penstock: {misread.no_json(error)}.") from None
    for name, like in misread.misspelt(os.environ, Settings):
        print(f"penstock: warning: {name} is no setting and changes nothing. Is it {like}?", file=sys.stderr)
    return found
