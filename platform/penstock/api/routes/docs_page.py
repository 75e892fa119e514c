"""`/docs`: the API's description for people, as Swagger UI shows it, under a policy that lets nothing else run.

Swagger UI comes from one host, in one version, whose bytes a browser compares with these hashes (W3C, Subresource
Integrity): neither that host nor who stands between can bring other code onto a page where keys are typed in.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

HOST: Final = "https://cdn.jsdelivr.net"
_DIST: Final = f"{HOST}/npm/swagger-ui-dist@5.35.0"
# openssl dgst -sha384 -binary FILE | base64, of the files in the package on npm.
_SCRIPT_HASH: Final = "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"
_STYLE_HASH: Final = "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I"

_SCRIPT: Final = """
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
<link rel="stylesheet" href="{_DIST}/swagger-ui.css" integrity="{_STYLE_HASH}" crossorigin="anonymous">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; what it shows is <a href="openapi.json">openapi.json</a>.</noscript>
<script src="{_DIST}/swagger-ui-bundle.js" integrity="{_SCRIPT_HASH}" crossorigin="anonymous"></script>
<script>{_SCRIPT}</script>
</body>
</html>
"""
_OWN_HASH: Final = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_DIST}/swagger-ui-bundle.js 'sha256-{_OWN_HASH}'",
        f"style-src {_DIST}/swagger-ui.css 'unsafe-inline'",  # it writes style attributes
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
