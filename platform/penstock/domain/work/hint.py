"""Hints: messages that say "there may be work"; they may be lost, doubled, late or foreign, and nothing breaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.domain.work.lane import Lane, generate_queue

VALIDATE_QUEUE: Final = "io.validate"
ASSEMBLE_QUEUE: Final = "io.assemble"
DELIVER_QUEUE: Final = "io.deliver"
EVALUATE_QUEUE: Final = "io.evaluate"
FOLD_QUEUE: Final = "io.fold"


@dataclass(frozen=True)
class Hint:
    """One Celery message: the task's name, its queue, and keyword arguments that a person can read in Flower."""

    task: str
    queue: str
    kwargs: dict[str, str]


def generate(model: str, lane: Lane) -> Hint:
    """This model has ready slices in this lane."""
    return Hint("penstock.generate", generate_queue(model, lane), {"model": model, "lane": str(lane)})


def validate(batch: str) -> Hint:
    """This batch's input waits to be validated."""
    return Hint("penstock.validate", VALIDATE_QUEUE, {"batch": batch})


def assemble(batch: str) -> Hint:
    """This batch's answers wait to be put together."""
    return Hint("penstock.assemble", ASSEMBLE_QUEUE, {"batch": batch})


def fold(batch: str) -> Hint:
    """Members of an ensemble have said what they were asked of some of this batch's lines."""
    return Hint("penstock.fold", FOLD_QUEUE, {"batch": batch})


def deliver(batch: str) -> Hint:
    """Events of this batch are owed to webhook endpoints."""
    return Hint("penstock.deliver", DELIVER_QUEUE, {"batch": batch})


def evaluate(id: str) -> Hint:
    """This run of an eval, or this comparison of two, waits for its scores."""
    return Hint("penstock.evaluate", EVALUATE_QUEUE, {"id": id})
