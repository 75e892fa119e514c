"""What a waiting call pays of its tokens a minute: by its body's size at the start, by what came at the end."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self

from penstock.domain.accounts.access import Access
from penstock.domain.accounts.tokens import Usage
from penstock.domain.limits.limit import LimitName
from penstock.service.limits.limiter import Limiter


class TokenRate:
    """One call's: `with`, whose end pays the rest, or gets back what an answer that never came had paid."""

    def __init__(self, limiter: Limiter, access: Access, asked: float) -> None:
        self._limiter = limiter
        self._access = access
        self._asked = max(1, math.ceil(asked))
        self._paid = self._used = 0

    async def take(self) -> None:
        """Pay for what is asked; raise TooMany."""
        await self._limiter.take(self._access, LimitName.TOKENS_PER_MINUTE, self._asked)
        self._paid = self._asked

    def used(self, usage: Usage) -> None:
        """What the answer says that it took."""
        self._used = usage.input_tokens + usage.output_tokens or self._paid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._used != self._paid:
            self._limiter.charge(self._access, LimitName.TOKENS_PER_MINUTE, self._used - self._paid)
