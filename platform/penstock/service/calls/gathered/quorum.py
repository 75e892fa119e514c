"""Quorums: what a client is told of a call to an ensemble of which too few members answered.

every one that was heard refused the request     400: it is the request's fault (a 429 is not)
all that gave no answer are busy or not there    429 if all say that this client asks too much, else 503; when to retry
else                                             502
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from penstock.domain.api_errors import BadGateway, BadRequest, PenstockError, TooMany, Unavailable
from penstock.service.calls.gathered.member_call import MemberEnd
from penstock.service.ensembles.fold import QUORUM

_NOT_THE_REQUESTS: Final = frozenset({401, 403, 408, 429})
_BUSY: Final = frozenset({429, 503})
_LATER_SECONDS: Final = 5


def missed(message: str, ends: Collection[MemberEnd]) -> PenstockError:
    """What to say, by what came of each member that was asked."""
    asked = [end for end in ends if end.answer.outcome != "cancelled"]
    heard = [end for end in asked if end.answer.outcome != "unavailable"]
    if heard and all(_refuses_the_request(end) for end in heard):
        return BadRequest(message, code=QUORUM)
    missing = [end for end in asked if end.answer.body is None]  # a judge may be, where all members answered
    if missing and all(end.status in _BUSY and not end.deaths for end in missing):
        later = min(end.retry_after_seconds or _LATER_SECONDS for end in missing)
        if all(end.status == 429 for end in missing):
            return TooMany(message, code=QUORUM, headers={"retry-after": str(later)})
        return Unavailable(message, code=QUORUM, retry_after_seconds=later)
    wasted = {"x-should-retry": "false"} if sum(end.deaths for end in asked) > 1 else None
    return BadGateway(message, code=QUORUM, headers=wasted)


def _refuses_the_request(end: MemberEnd) -> bool:
    return end.answer.outcome == "refused" and 400 <= end.status < 500 and end.status not in _NOT_THE_REQUESTS
