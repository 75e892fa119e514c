"""JSON bodies: read up to a limit and not a byte further, then checked against a model."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from penstock.api import errors
from penstock.domain.errors import BadRequest, NotSupported, TooLarge

M = TypeVar("M", bound="Asked")


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds a NUL character")
    return text


# Postgres keeps no NUL in its text; what is not text (requests, answers) goes elsewhere as bytes.
Text = Annotated[str, AfterValidator(_no_nul)]


class Asked(BaseModel):
    """A request's body: no silent conversions, no field that is not known."""

    model_config = ConfigDict(strict=True, extra="forbid")


def check_head(request: Request, max_bytes: int) -> None:
    """Refuse, before a byte is read, a body that is compressed or says that it is too large."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise NotSupported("Send the body without Content-Encoding.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):
        raise TooLarge(f"The body is larger than {max_bytes} bytes.")


async def read(request: Request, max_bytes: int) -> bytes:
    """Read the body; raise TooLarge as soon as it is known to be larger."""
    check_head(request, max_bytes)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise TooLarge(f"The body is larger than {max_bytes} bytes.")
    return bytes(body)


def decode(raw: bytes, type: Any = Any) -> Any:
    """Decode JSON strictly (no NaN, UTF-8 only, sane depth); raise BadRequest."""
    try:
        return msgspec.json.decode(raw, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequest(f"The body is not valid JSON: {why}", code="invalid_json") from None


def check(model: type[M], value: Any) -> M:
    """Check decoded JSON against a model; raise BadRequest with the first fault."""
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise errors.from_validation(error.errors(include_url=False, include_input=False)) from None


def documented(model: type[Asked]) -> dict[str, Any]:
    """What the OpenAPI page says of a body that the route reads by itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
