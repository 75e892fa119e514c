"""Patience: asking the API again and again, over its restarts and over rates that are used up.

Who was there before and is away now is asked again for some minutes; who says to come later, then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, Final

from penstock.cli.client import check, read

if TYPE_CHECKING:
    import httpx

PATIENCE_SECONDS: Final = 300.0
"""So long one tries to reach an API that was there before, or that says to come later."""
LOOK_AGAIN_SECONDS: Final = 0.5
MOST_OF_A_PAGE: Final = 100
_LATER: Final = (429, 503)


class PatientClient:
    """One client's looks at the API. `known`: it has answered well before; until then the first trouble is told.

    `meanwhile` is called twice a second while one waits.
    """

    def __init__(
        self, client: httpx.Client, *, known: bool = False, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        self._client = client
        self._known = known
        self._meanwhile = meanwhile

    def get(self, path: str, *, also: Container[int] = (), **more: Any) -> httpx.Response:
        """A good answer, when there is one, or one with a status that is `also` fine.

        Raises Problem if the API refuses, or says to come later for too long.
        """
        import httpx

        patient_until = time.monotonic() + (PATIENCE_SECONDS if self._known else 0)
        while True:
            try:
                answer = self._client.get(path, **more)
            except httpx.TransportError:
                if time.monotonic() > patient_until:
                    raise
                self._wait(LOOK_AGAIN_SECONDS)
                continue
            if not _is_later(answer) or time.monotonic() > patient_until:
                if answer.status_code not in also:
                    check(answer)
                self._known = True
                return answer
            later = answer.headers.get("retry-after", "")
            self._wait(min(float(later), PATIENCE_SECONDS) if later.isdecimal() else LOOK_AGAIN_SECONDS)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._meanwhile()
            time.sleep(min(left, LOOK_AGAIN_SECONDS))

    def json(self, path: str, **more: Any) -> Any:
        """The JSON of a good answer."""
        return read(self.get(path, **more))


def _is_later(answer: httpx.Response) -> bool:
    return answer.status_code in _LATER and answer.headers.get("x-should-retry") != "false"


def newest(patient: PatientClient, path: str, limit: int, **filters: str | None) -> dict[str, Any]:
    """The first `limit` of a list of the API, over as many of its pages as that takes, as one page."""
    data: list[Any] = []
    asked = {name: value for name, value in filters.items() if value is not None}
    while True:
        page = patient.json(path, params={**asked, "limit": min(limit - len(data), MOST_OF_A_PAGE)})
        data += page["data"]
        if not page["has_more"] or len(data) >= limit:
            return {**page, "data": data, "first_id": data[0]["id"] if data else page["first_id"]}
        asked["after"] = page["last_id"]
