"""Judging: what a judge is asked: the request and the members' answers in its ensemble's prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleKind
from penstock.formats.transcript import transcript, with_prompt

_PLACES: Final = re.compile(r"\{(request|answers|count)\}")
_CUT: Final = " […]"


def question(definition: EnsembleDefinition, endpoint: str, body: bytes, answers: Sequence[str]) -> bytes:
    """The judge's body, for a request's body and the texts of its answers in their order.

    One that says who is best is asked nothing but that. One that writes the answer is asked as the request would be:
    its limits, its `response_format` and so on hold, and one answer is wanted.
    """
    judge = definition.judge
    assert judge is not None, "it has one"
    each = max(1, judge.reads_chars // max(1, len(answers)))
    numbered = "\n\n".join(f"Answer {n}:\n{_cut(text, each)}" for n, text in enumerate(answers, 1))
    told = {
        "request": _cut(transcript(body), judge.reads_chars),
        "answers": numbered,
        "count": str(len(answers)),
    }
    prompt = _filled(judge.prompt, told)
    bare = definition.kind is not EnsembleKind.COMBINE
    return with_prompt(endpoint, body, prompt, definition.name, bare=bare)


def _filled(prompt: str, told: Mapping[str, str]) -> str:
    """In one pass: what is filled in holds no places, whatever it says."""
    return _PLACES.sub(lambda found: told[found[1]], prompt)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(1, most - len(_CUT))] + _CUT
