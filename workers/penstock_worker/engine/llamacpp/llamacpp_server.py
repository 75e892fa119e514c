"""llama.cpp's own HTTP server on a unix socket.

    python -m penstock_worker.engine.llamacpp.llamacpp_server --model FILE.gguf --uds SOCK --slots 8 …

xllamacpp has llama.cpp's server as a library: this process is that server. It ends at once at SIGTERM, as at SIGKILL;
both leave the socket's file, which would fail its next start, so it goes first.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

from penstock.model_source import gguf
from penstock.model_source.gguf_hub import fetch
from penstock.model_source.no_model import NoModel
from penstock_worker.engine.launch_spec import BadLaunch
from penstock_worker.engine.llamacpp import arguments as accepted

MOST_SLOT_TOKENS: Final = 4_096
"""A sequence's context unless `--ctx-size` says: the model's own may be more than the memory holds."""
_WARNINGS: Final = 2
_FLASH: Final = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}


def parameters(given: argparse.Namespace, user: argparse.Namespace, file: Path, head: gguf.GgufHead) -> Any:
    """llama.cpp's parameters: ours, and the user's where they are given."""
    import xllamacpp

    params: Any = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.model_alias = {given.served_model_name}
    params.hostnames = [given.uds]
    params.port = 0
    params.ui = False
    params.endpoint_metrics = params.endpoint_slots = True
    params.verbosity = _WARNINGS  # of each request it would tell lines, which cost time and disk
    params.n_parallel = given.slots
    each = given.slot_tokens or min(MOST_SLOT_TOKENS, head.context_tokens or MOST_SLOT_TOKENS)
    params.n_ctx = each * given.slots
    params.cache_ram_mib = accepted.DEFAULT_CACHE_RAM_MIB if user.cache_ram is None else user.cache_ram
    if user.threads:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = user.threads
    if user.threads_batch:
        params.cpuparams_batch.n_threads = user.threads_batch
    for name in ("batch_size", "ubatch_size", "n_gpu_layers"):
        if (value := getattr(user, name)) is not None:
            setattr(params, {"batch_size": "n_batch", "ubatch_size": "n_ubatch"}.get(name, name), value)
    if user.cache_type_k:
        params.cache_type_k = _kind(xllamacpp.ggml_type, "GGML_TYPE", user.cache_type_k)
    if user.cache_type_v:
        params.cache_type_v = _kind(xllamacpp.ggml_type, "GGML_TYPE", user.cache_type_v)
    if user.flash_attn:
        flash = _FLASH[user.flash_attn]
        params.flash_attn_type = _kind(xllamacpp.llama_flash_attn_type, "LLAMA_FLASH_ATTN_TYPE", flash)
    if user.pooling:
        params.pooling_type = _kind(xllamacpp.llama_pooling_type, "LLAMA_POOLING_TYPE", user.pooling)
    if user.chat_template_file:
        params.chat_template = user.chat_template_file.read_text()
    params.embedding = user.embeddings
    return params


def _kind(kinds: Any, prefix: str, name: str) -> Any:
    return kinds.__members__[f"{prefix}_{name.upper()}"]


def main() -> None:
    """Read the command line, load the model and serve until the end."""
    parser = argparse.ArgumentParser(prog="llamacpp_server", description="llama.cpp's server on a unix socket.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--uds", required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--slot-tokens", type=int)
    given, rest = parser.parse_known_args()
    try:
        user = accepted.read(rest)
        path = Path(given.model).expanduser()
        file = path if path.exists() else fetch(given.model, user.hf_file, user.revision, os.environ)
        head = gguf.read(file)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(given.uds)
        _serve(parameters(given, user, file, head), file)
    except (BadLaunch, NoModel, OSError) as error:
        print(f"llamacpp_server: error: {error}", file=sys.stderr, flush=True)
        # As argparse ends: another start would end so, too; but the hub or the disk may be better then.
        sys.exit(1 if isinstance(error, OSError) else 2)


def _serve(params: Any, file: Path) -> None:
    import xllamacpp

    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        print(f"llamacpp_server: error: llama.cpp can't load {file}: see its lines above", file=sys.stderr, flush=True)
        sys.exit(1)
    print(f"llama.cpp: {params.n_parallel} sequences of {params.n_ctx // params.n_parallel} tokens", flush=True)
    while server:  # it has threads of its own, and lives as long as this process
        signal.pause()


if __name__ == "__main__":
    main()
