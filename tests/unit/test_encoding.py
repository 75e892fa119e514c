"""A file that is no JSONL in UTF-8 is named for what it is; one that is, is not."""

from __future__ import annotations

import pytest

from penstock.formats.encoding import HEAD_BYTES, fault

LINE = '{"custom_id": "é-1", "body": {"input": "Grüße 東京"}}\n'


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (LINE.encode("utf-16"), "UTF-16"),
        (LINE.encode("utf-16-le"), "UTF-16"),
        (LINE.encode("utf-16-be"), "UTF-16"),
        (LINE.encode("utf-32"), "UTF-32"),
        ((LINE[:46] + "\n").encode("cp1252"), "line 1 has the byte 0xe9, as files in Windows-1252"),
        (b"{}\n" + b'{"a": "\xfc"}\n', "line 2 has the byte 0xfc"),
        (b"PK\x03\x04\x14", "a ZIP archive"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd"),
        (b"text\n" * 20 + b"\0", "NUL"),
        (b'\n [\n  {"custom_id": "1"}\n]', "a JSON array"),
    ],
)
def test_what_a_file_is_instead_is_said(head: bytes, words: str) -> None:
    told = fault(head[:HEAD_BYTES])
    assert told is not None
    assert words in told


@pytest.mark.parametrize(
    "head",
    [
        b"", b"\n\n", LINE.encode(), b"\xef\xbb\xbf" + LINE.encode(), b"nothing of JSON\n",
        (LINE * 3_000).encode()[: HEAD_BYTES], *((LINE.encode())[:n] for n in range(50)),
    ],
)  # fmt: skip
def test_a_file_of_lines_is_none_wherever_the_look_ends(head: bytes) -> None:
    assert fault(head) is None
