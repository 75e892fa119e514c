"""What is a GGUF, what is none, and what is not all of one: told before an engine is started."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import gguf as library
import numpy as np
import pytest

from penstock.model_source import gguf
from penstock.model_source.no_model import NoModel


def write(file: Path, *, context: int | None = 512) -> Path:
    """A GGUF of two tensors, by the library that everybody writes them with."""
    writer = library.GGUFWriter(str(file), "llama")
    writer.add_name("a model")
    if context is not None:
        writer.add_context_length(context)
    writer.add_token_list(["a", "bc", "ü"])
    writer.add_token_scores([0.5, 1.0, 2.0])
    writer.add_tensor("first", np.zeros((8, 32), np.float32))
    writer.add_tensor("last", np.zeros((4, 64), np.float32), raw_dtype=library.GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_its_head_says_what_it_is(tmp_path: Path) -> None:
    assert gguf.read(write(tmp_path / "a.gguf")) == gguf.GgufHead("llama", 512, 1)
    assert gguf.read(write(tmp_path / "b.gguf", context=None)).context_tokens is None


def test_a_file_that_is_cut_anywhere_is_told_from_one_that_is_whole(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (*range(24, 700, 13), len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(NoModel, match=r"cut\.gguf is cut off"):
            gguf.read(cut)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it has 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS"),
        (b"PK\x03\x04" + bytes(100), "does not begin with GGUF"),
        (b"GGUF\x01\0\0\0" + bytes(100), "of version 1"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 100, "cut off or damaged"),
    ],
    ids=["empty", "lfs", "zip", "old", "odd"],
)
def test_what_is_no_gguf_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(NoModel, match=words):
        gguf.read(tmp_path / "a.gguf")


def test_a_model_in_parts_needs_all_of_them(tmp_path: Path) -> None:
    first = write(tmp_path / "m-00001-of-00002.gguf")
    with pytest.raises(NoModel, match=r"part 1 of 2, and m-00002-of-00002\.gguf is not beside it"):
        gguf.read(first)
    second = write(tmp_path / "m-00002-of-00002.gguf", context=None)
    assert gguf.read(second) == gguf.GgufHead("llama", 512, 2)
    second.write_bytes(second.read_bytes()[:-100])
    with pytest.raises(NoModel, match=r"m-00002-of-00002\.gguf is cut off"):
        gguf.read(first)


def test_the_sizes_of_tensors_are_the_librarys() -> None:
    known = {int(kind): size for kind, size in library.GGML_QUANT_SIZES.items()}
    assert {kind: known[kind] for kind in gguf.TENSOR_TYPES} == gguf.TENSOR_TYPES


def test_a_pipe_and_a_head_without_end_are_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(NoModel, match="it is a pipe or a device"):
        gguf.read(tmp_path / "pipe.gguf")
    head = struct.pack("<4sIQQQ4sIIQ", b"GGUF", 3, 0, 1, 4, b"list", 9, 8, 1 << 40)
    with (tmp_path / "endless.gguf").open("wb") as file:
        file.write(head)
        file.truncate(1 << 40)
    with pytest.raises(NoModel, match="its head has no end"):
        gguf.read(tmp_path / "endless.gguf")
