"""Classifying: what a classifier is asked of a request, and what label is in its answer: a text, or vectors."""

from __future__ import annotations

import re
from typing import Final

from penstock.domain.ensembles.ensemble import ChosenMember, Classifier
from penstock.formats.answers.answer_text import answer_text
from penstock.formats.routed_request import as_asked, last_of_user
from penstock.formats.transcript import with_prompt
from penstock.service.ensembles import nearest

_PLACES: Final = re.compile(r"\{(request|labels)\}")
_MOST_READ: Final = 20_000
"""Characters of its answer that are read, the last ones."""
_CUT: Final = " […]"


def asked(chosen: ChosenMember, endpoint: str, body: bytes) -> bytes:
    """A request's body as a member is asked it: with its params; a classifier is asked for a label.

    `endpoint` is the request's; the body is for `chosen.endpoint(endpoint)`.
    """
    if chosen.classifier is not None and chosen.classifier.embeds:
        body = nearest.question(chosen.classifier, chosen.ensemble, body)
    elif chosen.classifier is not None:
        body = question(chosen.classifier, chosen.ensemble, endpoint, body)
    return as_asked(body, chosen.endpoint(endpoint), chosen)


def heard(classifier: Classifier, answer: bytes) -> str | None:
    """The label that an answer says; None if it says none."""
    return nearest.label(classifier, answer) if classifier.embeds else label(classifier, answer_text(answer))


def question(classifier: Classifier, name: str, endpoint: str, body: bytes) -> bytes:
    """What one is asked that writes text: its prompt, with the last user message in it, and nothing else."""
    text = last_of_user(body)
    if len(text) > classifier.reads_chars:
        text = text[: max(1, classifier.reads_chars - len(_CUT))] + _CUT
    told = {"request": text, "labels": "\n".join(f"- {one}" for one in classifier.labels)}
    prompt = _PLACES.sub(lambda found: told[found[1]], classifier.prompt)  # in one pass: a text holds no places
    return with_prompt(endpoint, body, prompt, name, bare=True)


def label(classifier: Classifier, text: str | None) -> str | None:
    """The label that an answer names last, since some think aloud before; None if it names none.

    Upper and lower case are the same, and a label is no part of a longer word. Of two that end at one place the longer
    one is named.
    """
    read = (text or "")[-_MOST_READ:].casefold()
    ends = {one: _end(one.casefold(), read) for one in classifier.labels}
    best = max(classifier.labels, key=lambda one: (ends[one], len(one)))
    return best if ends[best] else None


def _end(name: str, text: str) -> int:
    """Where the last mention of a name ends; 0 if there is none."""
    at = len(text)
    while (begin := text.rfind(name, 0, at)) >= 0:
        end = begin + len(name)
        if not (_goes_on(text[begin - 1 : begin], name[0]) or _goes_on(text[end : end + 1], name[-1])):
            return end
        at = end - 1
    return 0


def _goes_on(beside: str, edge: str) -> bool:
    return beside.isalnum() and edge.isalnum()
