"""What an answer says otherwise than its engine did: its model as the line asks it, and how an ensemble made it."""

from __future__ import annotations

from typing import Any

from penstock.domain.work.slice import Claim
from penstock.formats.answers.call_answer import saying
from penstock.formats.output import usage_of
from penstock.service.ensembles import nearest


def said(claim: Claim, body: bytes, outcome: str, seconds: float = 0.0) -> bytes:
    """The body as the line's client reads it. `outcome` is `answered`, `reused` or `refused`, `seconds` the engine's.

    A refusal has no model to be said, and what is no JSON object stays as it is. Of a classifier's vectors it says
    what they come to: they may be a thousand times as long as the line.
    """
    fields: dict[str, Any] = {} if claim.asked is None else {"model": claim.asked}
    if claim.chosen is not None:
        fields["penstock"] = claim.chosen.trace(outcome, usage_of(body).total_tokens, seconds)
        if (classifier := claim.chosen.classifier) is not None and classifier.embeds:
            body = nearest.kept(classifier, body)
    return saying(body, fields) if fields else body
