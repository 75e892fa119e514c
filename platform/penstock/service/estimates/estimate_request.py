"""Estimate requests: what is to be estimated before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.domain.work.lane import Lane
from penstock.domain.work.terms import OnInvalid


@dataclass(frozen=True)
class EstimateRequest:
    """What is to be estimated: a batch over a file, or requests as a job has them."""

    tenant: str
    endpoint: str
    lane: Lane
    completion_window: str
    input_file: str | None = None
    requests: Sequence[bytes] = ()
    allowed_models: frozenset[str] | None = None
    on_invalid: OnInvalid = OnInvalid.FAIL
    default_model: str | None = None
    """Of lines of a file that name none; None: the only one that may be asked, if there is just one."""
