"""Routed requests: what the conditions of a route read of a request, and what a member's params make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from types import EllipsisType
from typing import Any, Final

import msgspec

from penstock.domain.ensembles.conditions import LabelUnknown
from penstock.domain.ensembles.ensemble import ChosenMember
from penstock.domain.inference_endpoints import TOKEN_LIMITS, field_to_limit, token_limits
from penstock.formats.prefix import PromptFields

_NULL: Final = b"null"
_UNSAID: Final = (_NULL, b"false")
"""Logprobs are no member's default but an ensemble's own need: an answer is folded without them."""
_MOST_TEXT: Final = 1_000_000
"""Characters of a last message that are read; the rest is not looked at."""


class _Body(PromptFields, frozen=True):
    response_format: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()


_NOTHING: Final = _Body()
_read_body = msgspec.json.Decoder(_Body).decode
_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class RequestFacts:
    """The facts of one request's body (domain/ensembles/conditions.py), each read when it is first asked for.

    What is misshapen is as if it were not there: whether it is a request is for the engine to say.
    """

    def __init__(
        self,
        body: bytes,
        bytes_per_token: float,
        search: Callable[[str, str], bool],
        language: Callable[[str], str | None] = lambda _: None,
        label: str | EllipsisType | None = ...,
    ) -> None:
        """`search` looks for a pattern, `language` says a text's. `label`: the classifier's; `...` if it was not
        asked."""
        self._raw = body
        self._bytes_per_token = bytes_per_token
        self._search = search
        self._language = language
        self._label = label

    @cached_property
    def _body(self) -> _Body:
        try:
            return _read_body(self._raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _NOTHING

    @cached_property
    def prompt_tokens(self) -> int:
        """The bytes of its prompt as they were written, with tools and instructions, over the bytes of a token."""
        body = self._body
        prompt = sum(map(len, (body.tools, body.instructions, body.messages, body.prompt, body.input)))
        return int((prompt or len(self._raw)) / self._bytes_per_token)

    @cached_property
    def last(self) -> str:
        """Its last message's text."""
        body = self._body
        for raw in (body.messages, body.prompt, body.input):
            if raw:
                return _last_text(_value(raw))[:_MOST_TEXT]
        return ""

    @cached_property
    def last_of_user(self) -> str:
        """The text of the last message whose role is `user`; the last one's if there is none."""
        for raw in (self._body.messages, self._body.input):
            said = _value(raw)
            mine = [one for one in said if _of(one, "role") == "user"] if isinstance(said, list) else []
            if mine:
                return _last_text(mine)[:_MOST_TEXT]
        return self.last

    @cached_property
    def language(self) -> str | None:
        """Of that text."""
        return self._language(self.last_of_user)

    @property
    def label(self) -> str | None:
        """What its classifier said. Raises LabelUnknown."""
        if isinstance(self._label, EllipsisType):
            raise LabelUnknown
        return self._label

    @property
    def tools(self) -> bool:
        """Whether it brings any."""
        return bool(_value(self._body.tools))

    @property
    def response_format(self) -> str | None:
        """Its type: chat has it in `response_format`, responses in `text.format`."""
        found = _value(self._body.response_format) or _of(_value(self._body.text), "format")
        kind = _of(found, "type")
        return kind if isinstance(kind, str) else None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Its own, not its batch's."""
        found = _value(self._body.metadata)
        return found if isinstance(found, dict) else {}

    def matches(self, pattern: str) -> bool:
        """Whether the pattern is found in its last message."""
        return self._search(pattern, self.last)


def last_of_user(body: bytes) -> str:
    """The text of a body's last user message."""
    return RequestFacts(body, 1.0, lambda _, __: False).last_of_user


def _value(raw: msgspec.Raw) -> Any:
    try:
        return _read(raw) if raw else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _of(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _last_text(value: Any) -> str:
    """A text; of several the last one; of messages or items the last one's content, its parts put together."""
    if isinstance(value, list):
        value = value[-1] if value else ""
    if isinstance(value, dict):
        content = value.get("content")
        parts = content if isinstance(content, list) else [content]
        return "".join(one for part in parts if isinstance(one := _of(part, "text") or part, str))
    return value if isinstance(value, str) else ""


def asks_logprobs(body: bytes) -> bool:
    """Whether a request asks how sure its tokens were."""
    try:
        said = _value(_read_fields(body).get("logprobs", msgspec.Raw()))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return said is not None and said is not False


def with_defaults(body: bytes, endpoint: str, params: Mapping[str, Any]) -> bytes:
    """The body with those of a member's params that it does not say itself; all else stays as it was written.

    A null says nothing. A limit on tokens that it has by any of its names is its own. A body that is no object stays as
    it is.
    """
    if not params:
        return body
    try:
        fields = _read_fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    limited = any(bytes(fields.get(name, _NULL)) != _NULL for name in token_limits(endpoint))
    added = {}
    for name, value in params.items():
        if name in TOKEN_LIMITS:
            name = field_to_limit(endpoint, name, ())
            if limited:
                continue
        if name == "logprobs" and endpoint == "/v1/completions":
            value = int(value)  # there it says how many
        if bytes(fields.get(name, _NULL)) in (_UNSAID if name == "logprobs" else (_NULL,)):
            added[name] = msgspec.Raw(_encode(value))
    return _encode(fields | added) if added else body


class _Tools(msgspec.Struct):
    tools: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()


_read_tools = msgspec.json.Decoder(_Tools).decode


def brings_tools(body: bytes) -> bool:
    """Whether a body has tools that the model may call, or functions, as they were called before."""
    if b"tools" not in body and b"functions" not in body and b"\\u" not in body:
        return False
    try:
        found = _read_tools(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return bool(_value(found.tools) or _value(found.functions))


class _Cut(msgspec.Struct):
    top_n: Any = None


_read_cut = msgspec.json.Decoder(_Cut).decode


def top_n(body: bytes) -> int | None:
    """How many of its documents, the first ones, a body wants back; None: all, or what is no such number."""
    if b"top_n" not in body and b"\\u" not in body:
        return None
    try:
        found = _read_cut(body).top_n
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def as_asked(body: bytes, endpoint: str, member: ChosenMember) -> bytes:
    """The body as this member of an ensemble is asked it: with its params, and for all documents if it ranks them."""
    if member.ranks_all and top_n(body) is not None:
        fields = _read_fields(body)
        body = _encode({name: value for name, value in fields.items() if name != "top_n"})
    return with_defaults(body, endpoint, member.params)
