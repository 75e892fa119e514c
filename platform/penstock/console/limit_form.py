"""The form of limits: each has a field that is empty where the default holds; what was there is sent beside it."""

from __future__ import annotations

from typing import Any, Final

from penstock.console.form_values import whole_or_none
from penstock.console.forms import SentForm
from penstock.domain.limits.limit import LimitName

BUDGET: Final = "monthly_budget"


def changes(form: SentForm) -> dict[str, Any]:
    """What was changed, as the API takes it: a number, or None for a default; raises FormRefused.

    Who changes one limit leaves the others as somebody else may have set them meanwhile.
    """
    found: dict[str, Any] = {}
    for name in map(str, LimitName):
        if name in form and form[name] != form[f"was_{name}"]:
            found[name] = whole_or_none(form[name], name)
    if BUDGET in form and form[BUDGET] != form[f"was_{BUDGET}"]:
        found[BUDGET] = form[BUDGET] or None
    return found
