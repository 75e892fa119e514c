"""The tiny model is served in what the processor computes, unless somebody chooses."""

from __future__ import annotations

import pytest

from penstock.stack.tiny_model import dtype_arguments

OLD = "processor\t: 0\nflags\t\t: fpu sse4_2 avx2 avx512f\nmodel name\t: avx512_bf16\n"


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_a_processor_with_bfloat16_serves_it_as_it_is_stored(flag: str) -> None:
    assert dtype_arguments([], f"flags\t: fpu {flag} avx2\n") == ()


def test_elsewhere_it_is_float32() -> None:
    assert dtype_arguments(["--max-model-len=512"], OLD) == ("--dtype=float32",)


@pytest.mark.parametrize("given", [["--dtype=bfloat16"], ["--dtype", "bfloat16"]])
def test_whoever_chooses_a_dtype_gets_it(given: list[str]) -> None:
    assert dtype_arguments(given, OLD) == ()
