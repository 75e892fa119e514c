"""Access: what a key may do. A request needs a scope by where it goes, and a writing key if it changes anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from penstock.domain.accounts.limits import Limits
from penstock.domain.api_errors import BadRequest, Forbidden, QuotaSpent


class Role(StrEnum):
    """What kind of key it is."""

    TENANT = "tenant"
    """Does everything in its scopes."""
    VIEWER = "viewer"
    """Reads what there is in its scopes, and changes and asks nothing."""


class Scope(StrEnum):
    """A part of the API."""

    FILES = "files"
    BATCHES = "batches"
    """Batches, jobs, estimates, usage."""
    INFERENCE = "inference"
    """Waiting calls."""
    WEBHOOKS = "webhooks"


class Budget(StrEnum):
    """How a tenant's budget of this month stands."""

    NONE = "none"
    """There is none."""
    OPEN = "open"
    SPENT = "spent"


ALL: Final = frozenset(Scope)
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OF_PATH: Final = (
    ("/v1/files", Scope.FILES),
    ("/v1/batches", Scope.BATCHES),
    ("/v1/jobs", Scope.BATCHES),
    ("/v1/usage", Scope.BATCHES),
    ("/v1/organization/usage", Scope.BATCHES),
    ("/v1/webhook", Scope.WEBHOOKS),
    ("/v1/models", None),
    ("/v1/limits", None),
)
"""By the beginning of a path; every key may know the models and its limits. What is not here is a waiting call."""


@dataclass(frozen=True, slots=True)
class Access:
    """Whose a key is, and what it may do."""

    key: str
    """The key's id."""
    tenant: str
    role: Role = Role.TENANT
    scopes: frozenset[Scope] = ALL
    limits: Limits = field(default_factory=dict)
    """What is set for its tenant."""
    key_limits: Limits = field(default_factory=dict)
    budget: Budget = Budget.NONE
    """Its tenant's."""

    def check_budget(self) -> None:
        """Raise QuotaSpent if its tenant may begin no new work this month."""
        if self.budget is Budget.SPENT:
            raise QuotaSpent

    def check(self, method: str, path: str) -> None:
        """Raise Forbidden if a request goes beyond this key."""
        scope = next((scope for start, scope in _OF_PATH if path.startswith(start)), Scope.INFERENCE)
        if scope is not None and scope not in self.scopes:
            raise Forbidden(f"This key lacks the scope {scope.value!r}.", code="insufficient_scope")
        if self.role is Role.VIEWER and method not in _READING:
            raise Forbidden("This key may only read.", code="read_only_key")


def read_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """Scopes by their names, all if none is named; raise BadRequest."""
    try:
        return frozenset(Scope(name) for name in names) or ALL
    except ValueError:
        raise BadRequest(f"A scope is one of {', '.join(Scope)}.", param="scopes") from None
