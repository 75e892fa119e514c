"""The cause of a failed start is found in what the engine and its processes print."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_worker.engine.process import log_file

VLLM = """(APIServer pid=1) WARNING 18:45:59 This can cause fd limit errors like `OSError: [Errno 24]`.
(EngineCore pid=2) ERROR 18:47:55 [core.py:1510] EngineCore failed to start.
(EngineCore pid=2) ERROR 18:47:55 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=2) ERROR 18:47:55 [core.py:1510] ValueError: Block size 16 is not supported.
Process EngineCore:
Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'x': 1}
"""


CONFIG = """Traceback (most recent call last):
    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, Model architectures ['Foo'] are not supported for now. [type=value_error, input_value=ArgsKwargs((), {'m
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
FIELD = """(EngineCore pid=2) ERROR 11-29 18:47 [core.py:1] ValidationError: 1 validation error for CacheConfig
(EngineCore pid=2) ERROR 11-29 18:47 [core.py:1] block_size
(EngineCore pid=2) ERROR 11-29 18:47 [core.py:1]   Input should be 8 or 16 [type=literal_error, input_value=7]
(EngineCore pid=2) ERROR 11-29 18:47 [core.py:1]     For further information visit https://errors.pydantic.dev
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (VLLM, "ValueError: Block size 16 is not supported."),
        ("usage: api_server.py\napi_server.py: error: bad argument: -x\n", "error: bad argument: -x"),
        ("torch.OutOfMemoryError: CUDA out of memory.\n", "torch.OutOfMemoryError: CUDA out of memory."),
        (f"OSError: {'x' * 1_000}\n", f"OSError: {'x' * 390}…"),
        ("\x1b[31mx\nValueError: \x1b[1mbad\x00 \xe4\n", "ValueError: [1mbad \xe4"),
        ("INFO all is well\n", ""),
        (CONFIG, "ModelConfig: Model architectures ['Foo'] are not supported for now."),
        (FIELD, "CacheConfig: block_size: Input should be 8 or 16"),
    ],
)
def test_the_cause_is_the_last_error_that_is_not_about_another(tmp_path: Path, said: str, cause: str) -> None:
    log = tmp_path / "engine.log"
    log.write_text(f"--- start 1: python\nValueError: of the start before\n--- start 2: python\n{said}")
    assert log_file.cause(log) == cause


def test_a_log_that_is_not_there_has_no_cause(tmp_path: Path) -> None:
    assert log_file.cause(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("cause", "status", "comes_back"),
    [
        ("error: unrecognized arguments: --no-such-flag", 2, True),
        ("error: the disk is slow", 1, False),
        ("ModelConfig: Model architectures ['Foo'] are not supported for now.", 1, True),
        ("ModelConfig: Can't load it: We couldn't connect to 'https://huggingface.co'.", 1, False),
        ("safetensors._safetensors_rust.SafetensorError: Error while deserializing header", 1, True),
        ("ModuleNotFoundError: No module named 'flash_attn'", 1, True),
        ("torch.OutOfMemoryError: CUDA out of memory.", 1, False),
        ("OSError: We couldn't connect to 'https://huggingface.co' to load the files", 1, False),
        ("", 2, False),
    ],
)
def test_what_a_wrong_model_or_argument_did_comes_back_and_what_others_did_may_pass(
    cause: str, status: int, comes_back: bool
) -> None:
    assert log_file.comes_back(cause, status) is comes_back
