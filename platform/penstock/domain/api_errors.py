"""Errors: everything a caller can be told, each with a code, an HTTP status and the data to answer with.

    PenstockError
    ├── BadRequest          400  the request can't be understood or is not allowed
    │   └── OutboundRefused      a URL that we don't send to
    ├── Unauthorized        401  no key, or a key that is not valid
    ├── Forbidden           403  a valid key that may not do this
    ├── NotFound            404  no such thing, or it is another tenant's
    │   └── ModelNotFound        no such model; the message says which there are
    ├── NoEndpoint          404  the model is of a kind that has no such endpoint
    ├── TooSlow             408  the body came too slowly and was given up
    ├── Conflict            409  the thing exists, but its state does not allow this
    ├── Gone                410  it was there, and is kept no more
    ├── TooLarge            413  more bytes than the limit
    ├── NotSupported        415  a content type or encoding that is not read here
    ├── NoSuchRange         416  a file has no such bytes
    ├── TooMany             429  the tenant has as much open as its limit allows
    ├── EngineCrash         500  the engine died with the call in it, and the call may be why
    ├── BadGateway          502  those that were asked gave no answer that is one
    ├── Unavailable         503  a server behind us is away; try again
    ├── CallTimeout         504  the call took longer than a call may
    ├── NoSpace             507  the disk is full
    └── Internal            500  our own fault
    LeaseLost                    the holder writes no more: somebody else may hold the work now
    OutboundFailed               a receiver was not reached, or gave no answer in time
    Unreadable                   bytes that should be in the blob store can't be read

The docstring's first line is the default message.
"""

from __future__ import annotations


class PenstockError(Exception):
    """Something went wrong."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").split("\n")[0]
        self.code = code or type(self).code
        self.param = param
        self.headers = headers or {}
        super().__init__(self.message)


class BadRequest(PenstockError):
    """The request is not valid."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class OutboundRefused(BadRequest):
    """Nothing can be sent to this URL. It must be https on port 443 or 80, and its host have public addresses only."""

    code = "url_not_allowed"

    def __init__(self, reason: str, *, told: str | None = None, param: str | None = None) -> None:
        """`reason` is for the operator's log. `told` is for the tenant: only what the URL's own text says.

        All else is one message: what a name resolves to, and what answers there, is the operator's network's own.
        """
        self.reason = reason
        self.told = told
        super().__init__(told, param=param)


class Unauthorized(PenstockError):
    """The API key is missing or not valid. Send it as 'Authorization: Bearer <key>'."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(PenstockError):
    """This key may not do that."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(PenstockError):
    """There is no such object."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"

    def __init__(self, what: str, name: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(f"No such {what}: {name!r}.", param=param, code=code)


class ModelNotFound(NotFound):
    """There is no such model."""

    code = "model_not_found"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        PenstockError.__init__(self, message, param="model", code=code)


class NoEndpoint(PenstockError):
    """The model has no such endpoint."""

    status = 404
    type = "invalid_request_error"
    code = "unsupported_endpoint"


class Conflict(PenstockError):
    """The object's state does not allow this. SDKs retry a 409, so the answer says that it is no use."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"

    def __init__(self, current: str, wanted: str, message: str | None = None, *, code: str | None = None) -> None:
        self.current = current
        self.wanted = wanted
        super().__init__(
            message or f"It is {current} and can't become {wanted}.", code=code, headers={"x-should-retry": "false"}
        )


class Gone(PenstockError):
    """It was there, and is kept no more."""

    status = 410
    type = "invalid_request_error"
    code = "gone"


class TooSlow(PenstockError):
    """The request's body came too slowly and was given up; send it again."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, headers={"connection": "close"})  # nobody reads what may still come


class TooLarge(PenstockError):
    """The body is larger than the limit."""

    status = 413
    type = "invalid_request_error"
    code = "too_large"


class NotSupported(PenstockError):
    """This content type or encoding is not supported."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class NoSuchRange(PenstockError):
    """The file has no such bytes."""

    status = 416
    type = "invalid_request_error"
    code = "range_not_satisfiable"


class TooMany(PenstockError):
    """The limit is reached; try again when some of your work has ended."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class QuotaSpent(PenstockError):
    """Your tenant's budget of this month is spent: nothing new is begun until the next one, or a larger budget."""

    status = 429
    type = "insufficient_quota"  # OpenAI's words for it
    code = "insufficient_quota"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})


class BadGateway(PenstockError):
    """Those that were asked gave no answer that could be used."""

    status = 502
    type = "server_error"
    code = "bad_gateway"


class Unavailable(PenstockError):
    """A server that this needs is away; try again shortly."""

    status = 503
    type = "server_error"
    code = "unavailable"

    def __init__(self, message: str | None = None, *, retry_after_seconds: int = 2, code: str | None = None) -> None:
        super().__init__(message, code=code, headers={"retry-after": str(retry_after_seconds)})


class EngineCrash(PenstockError):
    """The engine died twice while it worked on this request, which is refused for a while: don't send it again."""

    code = "engine_crash"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})


class CallTimeout(PenstockError):
    """The answer was not whole within the longest time of a call; submit work that takes longer as a job."""

    status = 504
    type = "server_error"
    code = "call_timeout"

    def __init__(self, message: str | None = None) -> None:
        # SDKs retry a 504: a call that took all its time in an engine would take it twice more.
        super().__init__(message, headers={"x-should-retry": "false"})


class NoSpace(PenstockError):
    """There is not enough disk space for this."""

    status = 507
    type = "server_error"
    code = "insufficient_storage"


class Internal(PenstockError):
    """An internal error happened; it is in the log under this request's id."""

    code = "internal_error"


class LeaseLost(Exception):
    """The lease is no longer this holder's: its answers must be dropped."""


class OutboundFailed(Exception):
    """A receiver was not reached, or gave no answer in time."""

    def __init__(self, reason: str, *, told: str | None = None) -> None:
        """`reason` is for the operator's log; `told` for the tenant, of receivers outside the operator's networks."""
        self.reason = reason
        self.told = told
        super().__init__(reason)


class Unreadable(Exception):
    """Bytes that should be in the blob store can't be read."""
