"""An engine elsewhere that is none, or not ours: one clear line at the earliest moment, final where it stays so."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from worker.elsewhere import Answering, far_launch, server
from worker.engines import wait_ready

from penstock.domain.engine_trouble import EngineTrouble
from penstock.stack.ports import free_port
from penstock_worker.engine.client import EngineAnswer, EngineClient
from penstock_worker.engine.launch_spec import Launch
from penstock_worker.engine.process import probe
from penstock_worker.engine.process.supervisor import Supervisor

CHAT, MODELS = "/v1/chat/completions", "/v1/models"
JSON = "application/json"


def models(*names: str) -> tuple[int, str, bytes]:
    """A list of models as OpenAI has it."""
    return 200, JSON, json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode()


WHOLE = {"/health": (200, JSON, b"{}"), MODELS: models("theirs")}


@contextmanager
def supervised(made: Launch, folder: Path) -> Iterator[tuple[Supervisor, queue.Queue[str]]]:
    deaths = queue.Queue[str]()
    with Supervisor(
        made,
        runtime_dir=folder,
        log_path=folder / "engine.log",
        on_death=lambda _, why: deaths.put(why),
        chance=lambda: 0.0,
    ) as one:
        yield one, deaths


def trouble(folder: Path, url: str, *arguments: str, **environ: str) -> EngineTrouble:
    """Why it does not start."""
    with supervised(far_launch(folder, url, *arguments, **environ), folder) as (one, deaths):
        deaths.get(timeout=20)
        assert one.trouble
        return one.trouble


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        ({MODELS: (200, "text/html", b"<html>Sign in</html>")}, "is no OpenAI-compatible engine: .* is a web page"),
        ({MODELS: (200, JSON, b'{"models": []}')}, "is no OpenAI-compatible engine"),
        ({MODELS: models("b", "a")}, r"has a, b, not theirs"),
        ({MODELS: models()}, r"has no model, not theirs"),
        ({MODELS: (302, "text/plain", b"")}, "it leads elsewhere"),
        ({}, "has neither /v1/models nor /v1/chat/completions: is the address right"),
    ],
)
def test_what_is_no_engine_of_ours_ends_the_first_start_for_good(
    pages: dict[str, tuple[int, str, bytes]], why: str, short_dir: Path
) -> None:
    with server(Answering(pages)) as url:
        found = trouble(short_dir / "none", url)
    assert found.final
    assert re.search(why, found.why), found.why


def test_a_key_that_is_missing_or_wrong_is_said_and_one_from_a_file_is_read_again(short_dir: Path) -> None:
    folder, file = short_dir / "keyed", short_dir / "key"
    answer = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    said = Answering(WHOLE | {CHAT: (200, JSON, json.dumps(answer).encode())}, key="a-secret")
    with server(said) as url:
        missing = trouble(folder, url)
        assert missing.final
        assert "wants a key, and none was given (401): PENSTOCK_ENGINE_KEY or --key-file says it" in missing.why
        wrong = trouble(folder, url, PENSTOCK_ENGINE_KEY="another")
        assert wrong.final
        assert "does not take the key that it was given (401)" in wrong.why
        file.write_text("a-secret\n")
        with supervised(far_launch(folder, url, f"--key-file={file}"), folder) as (one, _):
            wait_ready(one, 30)
            assert ask(one).status == 200
            said.key = "the next one"  # it is rotated there first: nothing fails meanwhile
            held = ask(one)
            assert (held.status, held.retry_after_seconds) == (503, 5.0)
            assert not probe.healthy(one.launch.socket, 5.0)
            file.write_text("the next one")
            assert (ask(one).status, one.generation) == (200, 1)
        log = (folder / "engine.log").read_text()
        assert "a-secret" not in log
        assert "the next one" not in log


def ask(one: Supervisor) -> EngineAnswer:
    async def asked() -> EngineAnswer:
        async with EngineClient(socket=one.launch.socket, profile=one.launch.profile) as client:
            return await client.ask(CHAT, b'{"model":"theirs","messages":[]}', 10.0)

    return asyncio.run(asked())


@pytest.mark.parametrize("pages", [None, {"/health": (503, JSON, b"")}])
def test_who_is_away_is_said_and_waited_for(pages: dict[str, tuple[int, str, bytes]] | None, short_dir: Path) -> None:
    if pages is None:
        found = trouble(short_dir / "away", f"http://127.0.0.1:{free_port()}")
        assert "can't be reached: Connection refused" in found.why
    else:
        with server(Answering(pages)) as url:
            found = trouble(short_dir / "away", url)
        assert "answers 503 to /health" in found.why
    assert not found.final


def test_one_that_does_not_list_its_models_is_asked_all_the_same(short_dir: Path) -> None:
    folder = short_dir / "unlisted"
    pages = {MODELS: (403, JSON, b"{}"), CHAT: (400, JSON, b'{"error":{"message":"no model"}}')}
    with server(Answering(pages)) as url, supervised(far_launch(folder, url), folder) as (one, _):
        wait_ready(one, 30)
        assert ask(one).status == 400
        assert probe.names(one.launch.socket, 5.0) == ["theirs"]


def test_a_web_page_in_the_place_of_an_answer_is_an_error_and_no_answer(short_dir: Path) -> None:
    folder = short_dir / "page"
    pages = WHOLE | {CHAT: (200, "text/html", b"<html>")}
    with server(Answering(pages)) as url, supervised(far_launch(folder, url), folder) as (one, _):
        wait_ready(one, 30)
        answer = ask(one)
    assert answer.status == 502
    assert b"sent a web page in the place of an answer" in answer.body


@pytest.fixture(scope="module")
def certificate(short_dir: Path) -> Path:
    """A certificate for localhost that signed itself, and its key, in one file."""
    made = short_dir / "server.pem"
    key = short_dir / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", made, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    made.write_bytes(made.read_bytes() + key.read_bytes())
    return made


def test_a_certificate_is_checked_and_who_may_sign_it_can_be_said(short_dir: Path, certificate: Path) -> None:
    folder = short_dir / "tls"
    with server(Answering(WHOLE), certificate) as url:
        untrusted = trouble(folder, url)
        assert untrusted.final
        assert "has a certificate that is not trusted: self-signed certificate; --ca-file names" in untrusted.why
        with supervised(far_launch(folder, url, f"--ca-file={certificate}"), folder) as (one, _):
            wait_ready(one, 30)
