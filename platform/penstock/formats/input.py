"""Input lines: what one request of a batch looks like, and why it may be refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from penstock.domain.inference_endpoints import TOKEN_LIMITS, field_to_limit, named, token_limit, token_limits
from penstock.domain.work.batch import LineError
from penstock.formats import sequences
from penstock.formats.prefix import PromptFields

BOM: Final = b"\xef\xbb\xbf"
NOT_JSON: Final = "This line is not parseable as valid JSON."


class _Request(msgspec.Struct):
    custom_id: Any = None
    method: Any = None
    url: Any = None
    body: msgspec.Raw = msgspec.Raw()  # empty where it is missing


class _Body(PromptFields, frozen=True):
    n: Any = None
    best_of: Any = None
    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None


_read_request = msgspec.json.Decoder(_Request).decode
_read_body = msgspec.json.Decoder(_Body).decode
_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Line:
    """One request. `number` is its physical line in the input, from 1; `body` is JSON as the client wrote it."""

    number: int
    custom_id: str
    url: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Checked:
    """A line that passed, and what the plan needs of it."""

    custom_id: str
    model: str
    max_output_tokens: int | None
    answers: int
    """How many answers it asks for: its choices for each of its prompts."""
    body: bytes
    prompt: PromptFields
    named: bool = True
    """False: it names no model, and `body` has the one that was given for that."""


def tidy(raw: bytes, number: int) -> bytes:
    """Take off what is not content: a BOM in front of the file, the line's end, white space around it."""
    return (raw.removeprefix(BOM) if number == 1 else raw).strip(b" \t\r\n")


def too_long(most_bytes: int) -> str:
    """Why a line that is longer than this is refused."""
    return f"The line is longer than {most_bytes} bytes."


def check(
    line: bytes, number: int, endpoint: str, max_custom_id_bytes: int, default_model: str | None = None
) -> Checked | LineError:
    """Check one tidy, non-empty line against the contract; the first fault is the answer.

    `default_model` is what it asks if it names none; without, it must name one.
    """

    def refuse(code: str, message: str, param: str | None = None) -> LineError:
        return LineError(code, message, param, number)

    try:
        line.decode()
        request = _read_request(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a line that is no object included
        return refuse("invalid_json_line", NOT_JSON)

    custom_id = request.custom_id
    if custom_id is None or custom_id == "":
        return refuse("missing_required_parameter", "Missing required parameter: 'custom_id'.", "custom_id")
    if not isinstance(custom_id, str):
        return refuse("invalid_request", "custom_id must be a string.", "custom_id")
    if len(custom_id.encode()) > max_custom_id_bytes:
        return refuse("invalid_request", f"custom_id is longer than {max_custom_id_bytes} bytes.", "custom_id")
    if request.method is None:
        return refuse("missing_required_parameter", "Missing required parameter: 'method'.", "method")
    if request.method != "POST":
        return refuse("invalid_request", "method must be 'POST'.", "method")
    if request.url is None:
        return refuse("missing_required_parameter", "Missing required parameter: 'url'.", "url")
    if not isinstance(request.url, str) or named(request.url) != endpoint:
        return refuse("url_mismatch", f"The url of each line must be the batch's endpoint, {endpoint!r}.", "url")
    body = bytes(request.body)
    if body in (b"", b"null"):
        return refuse("missing_required_parameter", "Missing required parameter: 'body'.", "body")
    return _check_body(custom_id, endpoint, body, default_model, refuse)


def check_body(checked: Checked, endpoint: str, body: bytes, number: int) -> Checked | LineError:
    """A line that passed, with another body: its own with some fields more."""
    found = _check_body(
        checked.custom_id, endpoint, body, None, lambda code, words, param=None: LineError(code, words, param, number)
    )
    return found if isinstance(found, LineError) else replace(found, named=checked.named)


def _check_body(
    custom_id: str, endpoint: str, raw: bytes, default_model: str | None, refuse: Callable[..., LineError]
) -> Checked | LineError:
    try:
        body = _read_body(raw)
    except msgspec.ValidationError:
        if raw.startswith(b"{"):  # an object, with a number of a field that we read that is too large for a float
            return refuse("invalid_request", "A number in body is out of range.", "body")
        return refuse("invalid_request", "body must be a JSON object.", "body")
    except (msgspec.DecodeError, RecursionError):
        return refuse("invalid_json_line", NOT_JSON)
    model = body.model
    named = not (model is None or model == "")
    if not named and default_model is not None:
        model, raw = default_model, _with_model(raw, default_model)
    elif not named:
        return refuse("missing_required_parameter", "Missing required parameter: 'body.model'.", "body.model")
    if not isinstance(model, str) or len(model) > 200 or "\0" in model:
        return refuse("invalid_request", "body.model must be a string of at most 200 characters.", "body.model")
    if body.stream:
        return refuse("invalid_request", "A batch can't stream: leave out body.stream.", "body.stream")
    most = token_limit(endpoint, lambda name: getattr(body, name))
    choices = max(sequences.choices(body.n), sequences.choices(body.best_of))
    return Checked(custom_id, model, most, choices * sequences.texts(body.prompt), raw, body, named)


def _with_model(body: bytes, model: str) -> bytes:
    return msgspec.json.encode(_read_fields(body) | {"model": msgspec.Raw(msgspec.json.encode(model))})


def read(number: int, line: bytes) -> Line:
    """Read a line that was checked before."""
    request = _read_request(line)
    return Line(number, request.custom_id, named(request.url), bytes(request.body))


def custom_id_of(line: bytes) -> str:
    """The custom_id of a checked line."""
    custom_id: str = _read_request(line).custom_id
    return custom_id


def told_custom_id(line: bytes, max_bytes: int) -> str | None:
    """The custom_id of a line that may be anything; None if it has none that is valid."""
    try:
        line.decode()
        found = _read_request(line).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, str) and 0 < len(found.encode()) <= max_bytes else None


def model_of(body: bytes) -> str:
    """The model that a checked body names."""
    return str(_read_body(body).model)


def write(custom_id: str, endpoint: str, body: Any) -> bytes:
    """Write one request as a line, without its line end; `body` is any JSON value."""
    return msgspec.json.encode({"custom_id": custom_id, "method": "POST", "url": endpoint, "body": body})


def changed(line: bytes, changes: Mapping[str, Any]) -> bytes:
    """A checked line with other values in its body, merged shallowly; None takes a field out, the rest stays as it is.

    All other bytes of a value stay as they were written; of a name that stands there twice the last one counts. One
    limit on tokens, by whichever of its names, takes the place of those that the body has: beside the one that counts
    it would change nothing.
    """
    request = _read_fields(line)
    body = _read_fields(request["body"])
    for name, value in _on_its_field(request, body, changes).items():
        if value is None:
            body.pop(name, None)
        else:
            body[name] = msgspec.Raw(msgspec.json.encode(value))
    request["body"] = msgspec.Raw(msgspec.json.encode(body))
    return msgspec.json.encode(request)


def _on_its_field(
    request: Mapping[str, msgspec.Raw], body: Mapping[str, msgspec.Raw], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The changes, with a limit on tokens said by the name that counts in this body; several are left as they are."""
    named = [name for name in changes if name in TOKEN_LIMITS]
    if len(named) != 1:
        return dict(changes)
    url = msgspec.json.decode(request["url"], type=str)
    present = [name for name in token_limits(url) if bytes(body.get(name, b"null")) != b"null"]
    others = {name: value for name, value in changes.items() if name != named[0]}
    gone = dict.fromkeys(present)
    return others | gone | {field_to_limit(url, named[0], present): changes[named[0]]}
