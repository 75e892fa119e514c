"""Multipart bodies: one part, the file, streams on as it comes, other fields are small; the order does not matter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from penstock.api.http import body
from penstock.domain.api_errors import BadRequest, NotSupported

# What a form may hold beside the file: a few short fields, and the lines between the parts.
MAX_PARTS: Final = 16
MAX_FIELD_BYTES: Final = 4 * 1024
MAX_FILENAME_CHARACTERS: Final = 255
FRAME_BYTES: Final = MAX_PARTS * 16 * 1024


@dataclass
class Form:
    """A form that was read whole; `filename` is None if it had no file."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None


class _Reader:
    """Turns what the parser finds into fields, and into pieces of the file that wait to be taken."""

    def __init__(self, boundary: bytes, file_field: str) -> None:
        self._file_field = file_field
        self.form = Form()
        self.pieces: list[bytes] = []
        self.complete = False
        self._parts = 0
        self._headers: dict[str, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._part_ends,
                "on_end": self._ends,
            },
        )

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadRequest(f"The form has more than {MAX_PARTS} parts.")
        self._headers = {}
        self._value = bytearray()

    def _header_ends(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _headers_end(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise BadRequest("A part of the form has no 'Content-Disposition: form-data; name=…'.")
        self._name = _text(options[b"name"], "name")
        self._is_file = self._name == self._file_field
        if self._is_file:
            if self.form.filename is not None:
                raise BadRequest("The form has more than one file.", param=self._file_field)
            self.form.filename = _filename(options.get(b"filename", b""))
        elif self._name in self.form.fields:
            raise BadRequest(f"The form has {self._name[:100]!r} twice.", param=self._name[:100])

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.pieces.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise BadRequest(f"A field of the form is longer than {MAX_FIELD_BYTES} bytes.", param=self._name[:100])

    def _part_ends(self) -> None:
        if not self._is_file:
            self.form.fields[self._name] = _text(bytes(self._value), self._name)

    def _ends(self) -> None:
        self.complete = True


def boundary(request: Request, max_file_bytes: int) -> bytes:
    """Check the head of a form before anything is prepared for its body; what stands between its parts."""
    body.check_head(request, max_file_bytes + FRAME_BYTES, gzip=True)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise NotSupported("Send the file as multipart/form-data.")
    between = options.get(b"boundary", b"")
    if not 0 < len(between) <= 70:
        raise BadRequest("The Content-Type names no boundary of 1 to 70 bytes.")
    return between


async def receive(
    request: Request,
    between: bytes,
    take: Callable[[bytes, Form], Awaitable[None]],
    seconds: float,
    file_field: str = "file",
) -> Form:
    """Read a form, handing the bytes of its part `file_field` to `take` as they come, with what is known of the form.

    A form that comes as gzip is inflated. Raises BadRequest if it is cut or malformed, TooSlow if its sender stands
    still for so long, and BadRequest if it has no such part.
    """
    reader = _Reader(between, file_field)
    most = request.app.state.platform.settings.max_file_bytes + FRAME_BYTES
    try:
        async for piece in body.inflated(request, seconds, most):
            reader.parser.write(piece)
            for found in reader.pieces:
                await take(found, reader.form)
            reader.pieces.clear()
        reader.parser.finalize()
    except FormParserError as error:
        raise BadRequest(f"The form is malformed: {error}") from None
    if not reader.complete:
        raise BadRequest("The form is cut: its closing boundary is missing.")
    if reader.form.filename is None:
        message = f"Missing required parameter: {file_field!r}."
        raise BadRequest(message, code="missing_required_parameter", param=file_field)
    return reader.form


def documented(properties: Mapping[str, Mapping[str, Any]], required: Sequence[str]) -> dict[str, Any]:
    """What the OpenAPI page says of a form that the route reads by itself."""
    schema = {"type": "object", "required": list(required), "properties": dict(properties)}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def check_no_more(fields: Mapping[str, str]) -> None:
    """Raise BadRequest if there are fields that nobody knows."""
    if fields:
        name = next(iter(fields))[:100]
        raise BadRequest(f"Unknown parameter: {name!r}.", code="unknown_parameter", param=name)


def _text(value: bytes, param: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise BadRequest("A field of the form is not UTF-8.", param=param[:100]) from None
    if "\0" in text:
        raise BadRequest("A field of the form holds a NUL character.", param=param[:100])
    return text


def _filename(value: bytes) -> str:
    name = last_part(_text(value, "file"))
    if len(name) > MAX_FILENAME_CHARACTERS:
        raise BadRequest(f"The filename is longer than {MAX_FILENAME_CHARACTERS} characters.", param="file")
    return name


def last_part(path: str) -> str:
    """A file's name: the last part of the path that a client may have sent."""
    name = path.replace("\\", "/").rpartition("/")[2].strip()
    return name if name.strip(".") else "upload"
