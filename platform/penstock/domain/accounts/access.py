"""Access: what a key may do. A request needs a scope by where it goes, and a writing key if it changes anything.

What is below `/v1/admin`, `/v1/workers`, `/v1/pools` and `/v1/ensembles` is for operators' keys, whatever their scopes:
it is over all tenants; so is every change of models' versions and aliases. On all other routes an operator's key is a
key of its own tenant, and sees no other's things.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import nsmallest
from textwrap import shorten
from typing import Final

from penstock.domain.api_errors import BadRequest, Forbidden, QuotaSpent
from penstock.domain.limits.limit import Limits


class Role(StrEnum):
    """What kind of key it is; each may do what those after it may."""

    OPERATOR = "operator"
    """The same, and manages tenants and keys of all."""
    TENANT = "tenant"
    """Does everything in its scopes."""
    VIEWER = "viewer"
    """Reads what there is in its scopes, and changes and asks nothing."""


class Scope(StrEnum):
    """A part of the API."""

    FILES = "files"
    BATCHES = "batches"
    """Batches, jobs, estimates, evals, usage."""
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
_OPERATORS: Final = ("/v1/admin", "/v1/workers", "/v1/pools", "/v1/ensembles")
_OPERATORS_TO_WRITE: Final = ("/v1/model_versions", "/v1/model_aliases")
MOST_NAMED: Final = 10
"""Models in the message about one that does not exist."""
_MOST_CHARACTERS: Final = 240
"""What their names may take of it: a file may have many lines with this message."""
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OF_PATH: Final = (
    ("/v1/files", Scope.FILES),
    ("/v1/uploads", Scope.FILES),
    ("/v1/batches", Scope.BATCHES),
    ("/v1/jobs", Scope.BATCHES),
    ("/v1/evals", Scope.BATCHES),
    ("/v1/usage", Scope.BATCHES),
    ("/v1/organization/usage", Scope.BATCHES),
    ("/v1/webhook", Scope.WEBHOOKS),
    ("/v1/models", None),
    ("/v1/model_", None),
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
    models: frozenset[str] | None = None
    """What it may ask; None: every model."""
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
        only = _OPERATORS if method in _READING else _OPERATORS + _OPERATORS_TO_WRITE
        if any(path == start or path.startswith(f"{start}/") for start in only):
            if self.role is not Role.OPERATOR:
                raise Forbidden("This is for operators' keys only.", code="operator_only")
            return
        scope = next((scope for start, scope in _OF_PATH if path.startswith(start)), Scope.INFERENCE)
        if scope is not None and scope not in self.scopes:
            raise Forbidden(f"This key lacks the scope {scope.value!r}.", code="insufficient_scope")
        if self.role is Role.VIEWER and method not in _READING:
            raise Forbidden("This key may only read.", code="read_only_key")

    def check_gift(self, given: Access) -> None:
        """Raise Forbidden if a key with that access has more than this one, which makes it."""
        roles = list(Role)
        more_models = self.models is not None and (given.models is None or not given.models <= self.models)
        if roles.index(given.role) < roles.index(self.role) or not given.scopes <= self.scopes or more_models:
            raise Forbidden("A key can't give what it has not: a role, a scope or a model.", code="beyond_own_rights")


def allows(models: frozenset[str] | None, model: str) -> bool:
    """Whether a key with these models may ask this one, or this version or alias of one: `chat` allows `chat@v2`."""
    return models is None or model in models or model.rpartition("@")[0] in models


def only_one(known: Iterable[str], models: frozenset[str] | None) -> str | None:
    """The one known model that a key with these may ask; None if there are several, or none."""
    found = [model for model in known if allows(models, model)]
    return found[0] if len(found) == 1 else None


def not_allowed(model: str) -> str:
    """What whoever asks another is told."""
    return f"This key may not use the model {model[:200]!r}."


def unknown(model: str, known: Iterable[str], models: frozenset[str] | None) -> str:
    """What whoever asks a model that does not exist is told: which do, the first ten of those that its key may ask."""
    names = nsmallest(MOST_NAMED + 1, (name for name in known if allows(models, name)))
    told = ", ".join(names[:MOST_NAMED] + ["…"] * (len(names) > MOST_NAMED))
    which = f"There are: {shorten(told, _MOST_CHARACTERS, placeholder=' …')}" if names else "This key may ask none yet"
    return (
        f"The model {model[:200]!r} does not exist. {which} (GET /v1/models). "
        "An operator adds one with `penstock models add`."
    )


def check_model(models: frozenset[str] | None, model: str, param: str = "model") -> None:
    """Raise Forbidden (`model_not_allowed`) if a key with these models may not ask this one."""
    if not allows(models, model):
        raise Forbidden(not_allowed(model), code="model_not_allowed", param=param)


def read_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """Scopes by their names, all if none is named; raise BadRequest."""
    try:
        return frozenset(Scope(name) for name in names) or ALL
    except ValueError:
        raise BadRequest(f"A scope is one of {', '.join(Scope)}.", param="scopes") from None
