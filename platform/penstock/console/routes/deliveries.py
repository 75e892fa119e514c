"""`/console/webhooks/{endpoint}/deliveries/{delivery}`: one event for one endpoint: what is sent, and how it went."""

from __future__ import annotations

import json
from typing import Final

from fastapi import APIRouter, Request, Response

from penstock.console import pages
from penstock.console.form_route import FormRoute
from penstock.console.navigation import BASE
from penstock.console.session import LoggedIn

router = APIRouter(prefix=BASE, route_class=FormRoute)

_NOTICES: Final = {
    "tested": "The sample event was answered with 2xx.",
    "replayed": "It is sent again, under the same id.",
}


@router.get("/webhooks/{endpoint}/deliveries/{delivery}")
async def delivery(request: Request, visitor: LoggedIn, endpoint: str, delivery: str) -> Response:
    """One delivery with all its attempts."""
    found = await visitor.api.get(f"/v1/webhook_deliveries/{delivery}")
    payload = json.dumps(json.loads(found["payload"]), indent=2)
    return pages.page(request, visitor, "delivery.html", delivery=found, payload=payload, notices=_NOTICES)


@router.post("/webhooks/{endpoint}/deliveries/{delivery}/replay")
async def replay(request: Request, visitor: LoggedIn, endpoint: str, delivery: str) -> Response:
    """Send it again, with the whole schedule before it."""
    await visitor.api.post(f"/v1/webhook_deliveries/{delivery}/replay")
    return pages.redirect(request, f"/webhooks/{endpoint}/deliveries/{delivery}?done=replayed")
