"""A model with a hub id: what the cache has, what the hub says, whether it fits, and how far its download is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from worker.hub import COMMIT, ID, FakeHub, serving

from penstock.model_source.download import Download, in_words
from penstock.model_source.look import look
from penstock.model_source.no_model import NoModel
from penstock_worker.engine.download_news import telling

WEIGHTS = 24 * 1024 * 1024
TERABYTES = 10**15


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    empty = b"{}"
    weights = len(empty).to_bytes(8, "little") + empty
    files = {"config.json": empty, "tokenizer.json": bytes(1_000_000), "model.safetensors": weights}
    with serving(FakeHub(files)) as one:
        yield one


@pytest.fixture
def environ(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    """Of an engine whose cache is empty."""
    return {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}


def test_a_download_is_known_before_it_begins_watched_while_it_lasts_and_needs_no_hub_afterwards(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    hub.files["model.safetensors"] += bytes(WEIGHTS)  # the client writes 10 MiB at a time
    hub.held = "model.safetensors"
    download = look(ID, (), environ)
    assert download is not None
    assert download.total_bytes == sum(map(len, hub.files.values()))
    assert download.words() == f"downloading {ID}: 0 MB of 26 MB, 0 %"
    command = [sys.executable, "-c", f"import huggingface_hub; huggingface_hub.snapshot_download({ID!r})"]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    try:
        assert hub.half_sent.wait(60)
        while download.done_bytes < 10_000_000:
            assert process.poll() is None
            time.sleep(0.01)
        assert "MB of 26 MB, 4" in (download.words() or "")
        with capture_logs() as logs, telling(download, lambda: not logs, every_seconds=0.01):
            while not logs:
                time.sleep(0.01)
        assert logs[0]["progress"].startswith(f"downloading {ID}: 1")
        hub.go.set()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert download.words() is None
    assert look(ID, (), environ | {"HF_ENDPOINT": "http://127.0.0.1:9"}) is None
    assert look(ID, (), environ | {"HF_HUB_OFFLINE": "1"}) is None
    assert look(ID, ["--revision", COMMIT], environ | {"HF_HUB_OFFLINE": "1"}) is None


def test_what_the_hub_has_no_model_of_is_one_line(hub: FakeHub, environ: dict[str, str]) -> None:
    told = {
        (
            "org/none",
            (),
        ): f"org/none is neither a folder here nor a model at {hub.url}, or it is private: set HF_TOKEN.",
        (ID, ("TRANSFORMERS_OFFLINE",)): "HF_HUB_OFFLINE forbids to ask for it.",
    }
    for (source, offline), words in told.items():
        with pytest.raises(NoModel, match=words):
            look(source, (), environ | dict.fromkeys(offline, "1"))
    with pytest.raises(NoModel, match=r"not in the cache .*/hub, and http://127.0.0.1:9 can't be reached \(.+\)\."):
        look(ID, (), environ | {"HF_ENDPOINT": "http://127.0.0.1:9"})
    hub.status = 403
    with pytest.raises(NoModel, match=f"accept its terms at {hub.url}/{ID}, and set HF_TOKEN"):
        look(ID, (), environ)
    hub.status = 503
    download = look(ID, (), environ)
    assert download is not None, "the engine tries for itself what the hub does not say now"
    assert (download.total_bytes, download.words()) == (None, None)


def test_a_token_is_shown_and_stays_out_of_messages(hub: FakeHub, environ: dict[str, str], tmp_path: Path) -> None:
    hub.token = "hf_secret"
    with pytest.raises(NoModel, match="it is private: set HF_TOKEN"):
        look(ID, (), environ)
    with pytest.raises(NoModel, match="the token in HF_TOKEN may not see it") as told:
        look(ID, (), environ | {"HF_TOKEN": "hf_other"})
    assert "hf_other" not in str(told.value)
    assert look(ID, (), environ | {"HF_TOKEN": "hf_secret"}) is not None
    (tmp_path / "token").write_text("hf_secret\n")
    assert look(ID, (), environ) is not None


def test_a_repository_without_a_config_is_no_model(hub: FakeHub, environ: dict[str, str]) -> None:
    del hub.files["config.json"]
    with pytest.raises(NoModel, match=r"is no model that vLLM can load: there is no config\.json in it"):
        look(ID, (), environ)


def test_a_model_that_does_not_fit_on_the_disk_is_told_before_it_is_downloaded(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path
) -> None:
    hub.sizes["model.safetensors"] = TERABYTES
    with pytest.raises(NoModel, match=rf"{ID} does not fit: 1000000\.\d GB are to come, and [\d.]+ GB are free in "):
        look(ID, ["--download-dir", str(tmp_path / "other")], environ)
    assert look(ID, ["--load-format", "dummy"], environ) is not None, "then no weights come"


def test_only_the_weights_that_an_engine_reads_count(hub: FakeHub, environ: dict[str, str]) -> None:
    more = ("original/consolidated.00.pth", "pytorch_model.bin", "onnx/model.onnx")
    hub.files |= dict.fromkeys(more, b"x")
    hub.sizes |= dict.fromkeys(more, TERABYTES)
    download = look(ID, (), environ)
    assert download is not None
    assert download.total_bytes == sum(len(data) for name, data in hub.files.items() if name not in more)


def test_bytes_are_told_as_people_read_them(tmp_path: Path) -> None:
    assert [in_words(n) for n in (0, 340_000_000, 16_100_000_000)] == ["0 MB", "340 MB", "16.1 GB"]
    (tmp_path / "a.incomplete").write_bytes(bytes(3_000_000))
    assert Download(ID, tmp_path, None).words() == f"downloading {ID}: 3 MB so far"
