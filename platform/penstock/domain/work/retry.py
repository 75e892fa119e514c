"""Retries: which lines of an ended batch are asked again, and what is changed in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

OF_THE_LINE: Final = frozenset({"messages", "prompt", "input", "stream", "stream_options", "model"})
"""Body fields that a retry does not set: a line keeps what it asks, `model` has its own place, batches don't stream."""

EMPTY: Final = "empty"
TRUNCATED: Final = "truncated"


@dataclass(frozen=True)
class Retry:
    """What a retry repeats. Reasons add up; `custom_ids` narrows what they choose."""

    failed: bool = False
    """Every line without an answer."""
    status_codes: frozenset[int] = frozenset()
    """Lines that the engine refused with one of these."""
    error_codes: frozenset[str] = frozenset()
    """Lines whose error, or the engine's words for it, has one of these codes or types."""
    groups: frozenset[str] = frozenset()
    """Lines of these groups of errors, by `group_id`."""
    answered: str | None = None
    """`truncated`: also answers that max_tokens cut · `empty`: of those only the ones that say nothing."""
    custom_ids: frozenset[str] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Merged shallowly into each body; None takes a field out."""

    @property
    def wants_failed(self) -> bool:
        """Whether a line without an answer can be chosen."""
        return self.failed or bool(self.status_codes) or bool(self.error_codes) or bool(self.groups)

    def takes_failed(self, status: int | None, codes: frozenset[str], group: str = "") -> bool:
        """Whether it repeats a line that failed so."""
        named = status in self.status_codes or not codes.isdisjoint(self.error_codes)
        return self.failed or named or group in self.groups

    def takes_answered(self, finish: str) -> bool:
        """Whether it repeats a line whose answer ended so."""
        return self.answered is not None and finish in (EMPTY, self.answered)

    def as_json(self) -> dict[str, Any]:
        """Plain values, as a row keeps them."""
        return {
            "failed": self.failed,
            "status_codes": sorted(self.status_codes),
            "error_codes": sorted(self.error_codes),
            "groups": sorted(self.groups),
            "answered": self.answered,
            "custom_ids": None if self.custom_ids is None else sorted(self.custom_ids),
            "set": dict(self.changes),
        }

    @staticmethod
    def of_json(value: Mapping[str, Any]) -> Retry:
        """What `as_json` wrote."""
        return Retry(
            failed=value["failed"],
            status_codes=frozenset(value["status_codes"]),
            error_codes=frozenset(value["error_codes"]),
            groups=frozenset(value.get("groups", ())),  # an older release wrote none
            answered=value["answered"],
            custom_ids=None if value["custom_ids"] is None else frozenset(value["custom_ids"]),
            changes=value["set"],
        )
