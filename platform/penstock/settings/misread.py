"""What an environment says that is no setting: a line for old names, one for values that are none, a warning for slips.

All faults of a kind stand in one line, each with its setting and what to set.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

PREFIX: Final = "PENSTOCK_"
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
"""Names that settings had before."""
_OTHERS: Final = frozenset(
    {"API_KEY", "BIND", "DATA", "ENGINE_KEY", "ENGINE_KEY_FILE", "ENGINE_PYTHON", "MODEL", "URL"}
)
"""What commands, engines and the compose files read under our prefix beside the settings."""
_ALIKE: Final = 0.8
"""From here on difflib's ratio is a slip of the keyboard, and below it a variable of the operator's own."""
_MOST_CHARACTERS: Final = 60
_MUST_BE: Final[Mapping[str, str]] = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "greater_than_equal": "{ge:.15g} or more",
    "greater_than": "more than {gt:.15g}",
    "less_than_equal": "{le:.15g} or less",
    "less_than": "less than {lt:.15g}",
    "value_error": "{error}",
}
"""By pydantic's type of error (docs.pydantic.dev/latest/errors/validation_errors)."""


def refuse_old_names(environment: Iterable[str]) -> None:
    """Stop with one line if a setting stands there under the name it had before."""
    given = {name.upper() for name in environment}
    found = [f"{PREFIX}{old} is now {PREFIX}{new}" for old, new in RENAMED.items() if f"{PREFIX}{old}" in given]
    if found:
        raise SystemExit(f"penstock: {'; '.join(found)}: set the new name instead.")


def told(error: ValidationError, model: type[BaseModel]) -> str:
    """All that can't be read, in one line; secrets, and addresses that hold a password, are not shown."""
    return "; ".join(f"{_shown(one, model)} must be {_must_be(one)}" for one in error.errors())


def _shown(one: ErrorDetails, model: type[BaseModel]) -> str:
    name = str(one["loc"][0])
    value = str(one["input"])
    secret = "Secret" in str(model.model_fields[name].annotation) or "@" in value
    cut = value if len(value) <= _MOST_CHARACTERS else value[:_MOST_CHARACTERS] + "…"
    return f"{PREFIX}{name.upper()}" + ("" if secret else f" is {cut!r}: it")


def _must_be(one: ErrorDetails) -> str:
    words = _MUST_BE.get(one["type"])
    context: dict[str, Any] = one.get("ctx", {})
    return words.format(**context) if words else f"something else ({one['msg']})"


def no_json(error: SettingsError) -> str:
    """A value that must be JSON and is none, which fails before anything is validated."""
    named = re.search('"([a-z_]+)"', str(error))
    return f"{PREFIX}{named[1].upper() if named else '…'} must be JSON"


def misspelt(environment: Iterable[str], model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Variables that are no setting and nearly are one, each with the setting that it is like."""
    known = [name.upper() for name in model.model_fields]
    for variable in sorted(environment):
        name = variable.upper().removeprefix(PREFIX)
        if not variable.upper().startswith(PREFIX) or name in _OTHERS or name in known:
            continue
        if like := difflib.get_close_matches(name, known, 1, _ALIKE):
            yield variable, f"{PREFIX}{like[0]}"
