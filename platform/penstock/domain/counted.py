"""What is counted: rare things on the whole platform, by name; and what each means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COUNTED: Final = {
    "lease_reaped": "Leases whose holder fell silent, so that what they held was freed.",
    "lease_lost": "Holders that found their lease gone: a flush that was refused, or a beat that said so.",
    "answers_dropped": "Answers that came under a lease that was gone: dropped, since somebody else asks again.",
    "engine_death": "Engines that died or hung with lines in flight.",
    "line_crashed": "Lines that ended as engine_crash.",
    "blob_swept": "Blobs that the sweep deleted.",
    "file_swept": "Files that expired and were swept.",
    "segment_swept": "Segments of ended batches that were swept, since their lines are in the output files.",
    "batch_deleted": "Batches and jobs that their tenants deleted.",
    "batch_swept": "Batches and jobs that were swept long after their end.",
    "lease_swept": "Closed leases that were swept.",
    "event_swept": "Events that were swept once they were old.",
    "webhook_attempt": "Attempts to deliver an event to a webhook endpoint, whatever came of them.",
    "webhook_attempt_milliseconds": "Time that those attempts took, added up.",
    "webhook_delivered": "Deliveries that a receiver answered with 2xx.",
    "webhook_delivered_milliseconds": "Time from the event to that answer, added up.",
    "webhook_given_up": "Deliveries that failed at their last attempt, or whose endpoint answered 410.",
    "webhook_unsigned": "Attempts that sent nothing, since no key opens the endpoint's secret: see `penstock secrets`.",
    "delivery_swept": "Deliveries that were swept once they were old, with their attempts.",
    "pool_switches": "Switches of pools that were done, by the reason of their decision.",
    "pool_switch_seconds": "Time that those switches took, added up: nothing was answered on their places meanwhile.",
    "pool_switches_failed": "Switches of pools after which whoever should have come was not awake.",
    "pool_member_killed": "Members of pools that were killed, since they did not end in time.",
    "pool_start_failed": "Starts and wakes in pools that failed, and were tried again or given up.",
    "pool_sleep_failed": "Engines in pools that did not fall asleep as they should, and were ended.",
    "ensemble_lines": "Lines of batches and jobs that an ensemble that gathers gave an answer or an error.",
    "ensemble_lines_failed": "Of these: those that it gave an error.",
    "ensemble_lines_escalated": "Lines that a later member of such an ensemble, or its judge, was asked.",
    "ensemble_votes": "Lines of batches and jobs that a vote decided.",
    "ensemble_votes_tied": "Of these: those of which another label had as much weight as the one that won.",
    "ensemble_votes_agreement_thousandths": "Of these: which part of the votes' weight was for the winner, added up.",
    "trail_swept": "Rows of the trail of state moves that were swept once they were old.",
    "batches_ended": "Batches and jobs that ended, by how.",
    "batches_late": "Batches and jobs that completed or expired after their deadline.",
    "cost": "Cost of batches and jobs that ended, in the currency of the prices.",
    "blob_errors": "Requests to the blob store that failed: it was away or full, or a blob was missing or too short.",
    "keeper_ticks": "Ticks of keepers.",
    "keeper_tick_milliseconds": "Time that those ticks took, added up.",
    "keeper_duties_failed": "Duties in those ticks that failed: see the keeper's log.",
}
"""Every name that may be counted, and what it means."""

INCIDENTS: Final = (
    "lease_reaped",
    "lease_lost",
    "answers_dropped",
    "engine_death",
    "line_crashed",
    "webhook_given_up",
    "pool_switches_failed",
    "pool_member_killed",
    "pool_start_failed",
    "pool_sleep_failed",
)
"""Of those: what went wrong, and is kept with its time for a week (store/work/incidents.py)."""

LABELLED: Final[dict[str, tuple[str, ...]]] = {
    "pool_switches": ("reason",),
    "pool_switch_seconds": ("reason",),
    "ensemble_lines": ("ensemble",),
    "ensemble_lines_failed": ("ensemble",),
    "ensemble_lines_escalated": ("ensemble",),
    "ensemble_votes": ("ensemble",),
    "ensemble_votes_tied": ("ensemble",),
    "ensemble_votes_agreement_thousandths": ("ensemble",),
    "batches_ended": ("kind", "lane", "state"),
    "batches_late": ("lane",),
    "cost": ("lane",),
    "blob_errors": ("kind",),
}
"""Of those that are counted apart, `NAME/VALUE/…`, the labels that the values are of."""

PARTS: Final = {"cost": 1_000_000_000}
"""Of those that are counted in parts of what they are told in, how many parts one has."""


@dataclass(frozen=True)
class CountedHistogram:
    """A histogram by lane that is counted in Postgres: `NAME/LANE/BOUND`, and `NAME/LANE/sum` in thousandths."""

    words: str
    field: str
    """Of domain/work/batch_ends.py's EndedBatch."""
    bounds: tuple[float, ...]
    """Upper ends of its buckets, in seconds, or as parts of a whole."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its buckets, as Prometheus writes them in `le`."""
        return (*(str(float(bound)) for bound in self.bounds), "+Inf")


HISTOGRAMS: Final = {
    "batch_seconds": CountedHistogram(
        "Time from a batch's or job's creation to its end, in seconds.",
        "seconds",
        (1, 10, 60, 300, 900, 3_600, 14_400, 43_200, 86_400, 172_800, 604_800),
    ),
    "batch_validating_seconds": CountedHistogram(
        "Time from a batch's creation until its lines could be asked: waiting for an io worker, and validation.",
        "validating_seconds",
        (1, 10, 60, 300, 900, 3_600, 14_400),
    ),
    "batch_first_answer_seconds": CountedHistogram(
        "Time from then until the batch's first answers were recorded, in seconds.",
        "first_answer_seconds",
        (1, 10, 60, 300, 900, 3_600, 14_400, 43_200, 86_400),
    ),
    "batch_finalizing_seconds": CountedHistogram(
        "Time from a batch's last answer to its end: waiting for an io worker, and writing its files.",
        "finalizing_seconds",
        (1, 10, 60, 300, 900, 3_600, 14_400),
    ),
    "eta_error_ratio": CountedHistogram(
        "Time that a completed batch took from when its end was first expected, over what was expected: 1 was right.",
        "eta_error_ratio",
        (0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4),
    ),
}
"""Each by lane."""
