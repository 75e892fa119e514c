"""Line metrics: what this worker recorded of batches' and jobs' lines: how they ended, their tokens, their errors.

A line is recorded under one lease, so each counts in one worker: sums over workers count nothing twice.
"""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from penstock.domain.accounts.tokens import Usage
from penstock.domain.work.slice import Claim
from penstock.formats.output import Record

REGISTRY: Final = CollectorRegistry()
"""What the ingress's page shows beside its own."""
_LINES: Final = Counter(
    "penstock_lines",
    "Lines of batches and jobs that this worker recorded, by the lane they were claimed in; "
    "outcome: answered, reused (the answer was there already) or failed.",
    ["model", "lane", "outcome"],
    registry=REGISTRY,
)
_TOKENS: Final = Counter(
    "penstock_tokens",
    "Tokens of these lines, as the engine counted them; cached ones are part of the input, reasoning and reused ones "
    "of the output.",
    ["model", "kind"],
    registry=REGISTRY,
)
_ERRORS: Final = Counter(
    "penstock_line_errors",
    "Of these lines: those that failed, by the code in the error file, or status_NNN if the engine answered so.",
    ["model", "code"],
    registry=REGISTRY,
)
_CODE: Final = re.compile(rb'"response":(?:\{"status_code":(\d{3})|null,"error":\{"code":"([a-z_]{1,40})")')


def recorded(claim: Claim, records: Sequence[Record]) -> None:
    """These lines of a claim were accepted."""
    usage, outcomes, codes = Usage(), Tally[str](), Tally[str]()
    for record in records:
        usage += record.usage
        outcomes["failed" if record.failed else "reused" if record.reused else "answered"] += 1
        if record.failed:
            codes[code(record.line)] += 1
    for outcome, count in outcomes.items():
        _LINES.labels(claim.model, str(claim.lane), outcome).inc(count)
    for error, count in codes.items():
        _ERRORS.labels(claim.model, error).inc(count)
    for kind in ("input", "cached", "output", "reasoning", "reused_output"):
        _TOKENS.labels(claim.model, kind).inc(getattr(usage, f"{kind}_tokens"))


def code(line: bytes) -> str:
    """Why an output line has failed: a code of ours or `status_NNN`. The keys in a custom_id are escaped, so it is
    the line's own."""
    found = _CODE.search(line)
    if found is None:
        return "other"
    return f"status_{found[1].decode()}" if found[1] else found[2].decode()
