"""`/docs`: the API's description for people, as Swagger UI shows it, under a policy that lets nothing else run.

Swagger UI is in this package, in one version (`swagger_ui/README.md`): the page needs no other host. Its bytes are
compared with these hashes here, and by each browser (W3C, Subresource Integrity): no proxy brings other code onto a
page where keys are typed in.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from penstock.api.http import content

VERSION: Final = "5.35.0"


@dataclass(frozen=True)
class Asset:
    """A file of Swagger UI, as npm has it but for its compression."""

    file: str
    media_type: str
    sha384: str
    """openssl dgst -sha384 -binary FILE | base64, of the file in swagger-ui-dist on npm."""

    @property
    def name(self) -> str:
        """What it is called here: another version has another name, so it may be kept for as long as anybody likes."""
        stem, _, kind = self.file.rpartition(".")
        return f"{stem}-{VERSION}.{kind}"


SCRIPT: Final = Asset(
    "swagger-ui-bundle.js",
    "text/javascript",
    "gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9",
)
STYLE: Final = Asset(
    "swagger-ui.css",
    "text/css",
    "WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I",
)
_ASSETS: Final = {asset.name: asset for asset in (SCRIPT, STYLE)}

_START: Final = """
SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, presets: [SwaggerUIBundle.presets.apis],
})
"""
_PAGE: Final = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Penstock</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/{STYLE.name}" integrity="sha384-{STYLE.sha384}">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; what it shows is <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/{SCRIPT.name}" integrity="sha384-{SCRIPT.sha384}"></script>
<script>{_START}</script>
</body>
</html>
"""
_OWN_HASH: Final = base64.b64encode(hashlib.sha256(_START.encode()).digest()).decode()
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"script-src 'self' 'sha256-{_OWN_HASH}'",
        "style-src 'self' 'unsafe-inline'",  # it writes style attributes
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

router = APIRouter()


@router.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    """The page."""
    return HTMLResponse(_PAGE, headers={"content-security-policy": POLICY})


@router.get("/docs/{name}", include_in_schema=False)
async def asset(request: Request, name: str) -> Response:
    """What the page is made of."""
    found = _ASSETS.get(name)
    if found is None:
        raise HTTPException(404)
    packed = _packed(found)
    headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
    if content.accepts_gzip(request):
        headers["content-encoding"] = "gzip"
    else:
        packed = gzip.decompress(packed)
    return Response(packed, headers=headers, media_type=found.media_type)


@cache
def _packed(one: Asset) -> bytes:
    packed = (resources.files(__package__) / "swagger_ui" / f"{one.file}.gz").read_bytes()
    digest = hashlib.sha384(gzip.decompress(packed)).digest()
    assert base64.b64encode(digest).decode() == one.sha384, f"{one.file} is not that of {VERSION}"
    return packed
