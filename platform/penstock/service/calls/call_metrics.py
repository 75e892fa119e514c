"""Metrics of waiting calls: how long they take, how often one is offered again, and which are refused as poison."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

CALL_SECONDS = Histogram(
    "penstock_call_seconds",
    "Time of a waiting call from its whole body to its answer's end, by endpoint, tier and class of status.",
    ["endpoint", "tier", "status"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600),
)
CALL_TTFT_SECONDS = Histogram(
    "penstock_call_ttft_seconds",
    "Time of a waiting call from its whole body to the first byte of its answer, by endpoint and tier.",
    ["endpoint", "tier"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
CALLS = Gauge("penstock_calls_in_flight", "Waiting calls in this process.")
OFFERED_AGAIN = Counter(
    "penstock_call_retries", "Calls that were offered to another worker, by what became of the try before.", ["reason"]
)
MEMBERS = Counter(
    "penstock_ensemble_member_calls",
    "Members of ensembles that waiting calls asked, by the ensemble's kind and what came of each.",
    ["kind", "outcome"],
)
VOTE_AGREEMENT = Histogram(
    "penstock_ensemble_call_agreement",
    "Of votes that waiting calls decided: what part of the votes' weight was for the winner's label.",
    buckets=(0.2, 0.4, 0.5, 0.6, 0.8, 0.9, 1.0),
)
VOTES_TIED = Counter("penstock_ensemble_calls_tied", "Of these: votes of which another label had as much.")
POISON = Counter("penstock_calls_refused_poison", "Calls refused because engines died of the same body lately.")
