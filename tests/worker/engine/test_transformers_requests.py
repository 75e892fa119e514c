"""What `transformers serve` is told of a request, what is refused in its place, and its answers' names (no engine)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from penstock_worker.engine import kind
from penstock_worker.engine.launch_spec import BadLaunch, Launch
from penstock_worker.engine.transformers.request import Unsupported, translated
from penstock_worker.engine.transformers.socket_server import Translated

SOURCE = "/models/a model"


def told(**fields: Any) -> dict[str, Any]:
    found = json.loads(translated(json.dumps(fields).encode(), SOURCE))
    assert isinstance(found, dict)
    return found


def test_it_is_told_its_own_name_and_to_draw_nothing() -> None:
    assert told(model="tiny", prompt="é", max_tokens=3) == {
        "model": SOURCE, "prompt": "é", "max_tokens": 3, "temperature": 0.0,
    }  # fmt: skip


def test_what_it_refuses_or_would_count_otherwise_is_said_in_its_words() -> None:
    found = told(ignore_eos=True, priority=7, cache_salt="x", seed=1, top_p=0.5, max_completion_tokens=9)
    assert found == {"model": SOURCE, "max_tokens": 9, "temperature": 0.0}


@pytest.mark.parametrize(
    "field",
    [
        {"n": 2}, {"best_of": 3}, {"temperature": 0.7}, {"response_format": {"type": "json_object"}},
        {"tool_choice": "required"}, {"logprobs": True}, {"stop": ["\n"]}, {"presence_penalty": 0.1}, {"echo": True},
    ],
    ids=str,
)  # fmt: skip
def test_what_it_would_silently_not_do_is_refused_and_named(field: dict[str, Any]) -> None:
    with pytest.raises(Unsupported) as refused:
        told(messages=[], **field)
    assert refused.value.field == next(iter(field))
    assert f"leave {refused.value.field} out" in str(refused.value)


def test_the_same_fields_pass_where_they_ask_for_what_it_does() -> None:
    usual = {"n": 1, "temperature": 0, "response_format": {"type": "text"}, "tool_choice": "auto", "logprobs": None}
    assert told(**usual, stop=None, echo=False) == {"model": SOURCE, "temperature": 0.0}


@pytest.mark.parametrize("body", [b"", b"[1]", b"nonsense", b'"\xff"'])
def test_what_is_no_request_at_all_is_its_own_affair(body: bytes) -> None:
    assert translated(body, SOURCE) == body


def through(body: bytes, answer: list[bytes], path: str = "/v1/completions") -> tuple[int, bytes, bytes]:
    """Status and body of an answer, and what the inner application was asked."""
    asked = bytearray()
    sent: list[MutableMapping[str, Any]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        asked.extend((await receive())["body"])
        assert dict(scope["headers"])[b"content-length"] == b"%d" % len(asked)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        for piece in answer:
            await send({"type": "http.response.body", "body": piece, "more_body": piece is not answer[-1]})

    async def call() -> None:
        pieces = iter([{"type": "http.request", "body": part, "more_body": True} for part in (body[:5], body[5:])])

        async def receive() -> Any:
            return next(pieces, {"type": "http.request", "body": b"", "more_body": False})

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-length", b"9")]}
        await Translated(inner, SOURCE, "tiny")(scope, receive, send)

    asyncio.run(call())
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent), bytes(asked)


def test_answers_and_events_have_the_name_that_clients_use() -> None:
    theirs = [b'data: {"model":"/models/a model@main","text":"a"}\n\n', b'data: {"model":"/models/a model@main"}\n\n']
    status, body, asked = through(b'{"model":"tiny","prompt":"a"}', theirs)
    assert status == 200
    assert body == b'data: {"model":"tiny","text":"a"}\n\ndata: {"model":"tiny"}\n\n'
    assert json.loads(asked)["model"] == SOURCE


def test_a_refusal_has_openais_envelope_and_the_engine_is_not_asked() -> None:
    status, body, asked = through(b'{"model":"tiny","n":2}', [b""])
    error = json.loads(body)["error"]
    assert (status, error["param"], error["code"], asked) == (400, "n", "unsupported_parameter", b"")


def test_it_lists_the_name_that_it_serves() -> None:
    status, body, _ = through(b"", [b""], "/v1/models")
    assert (status, [one["id"] for one in json.loads(body)["data"]]) == (200, ["tiny"])


def launch(folder: Path, *arguments: str, source: str = "org/model") -> Launch:
    return kind.launch(
        "transformers", model="tiny", source=source, socket=folder / "e.sock", arguments=arguments, environ={},
        python="none",
    )  # fmt: skip


def test_its_cache_has_a_bound_unless_the_user_sets_one(short_dir: Path) -> None:
    command = " ".join(launch(short_dir).command)
    assert "--cb-num-blocks 256 --cb-block-size 128 --cb-max-batch-tokens 256" in command
    assert "256" not in " ".join(launch(short_dir, "--cb-max-memory-percent=0.5").command)
    own = launch(short_dir, "--cb-block-size=64", "--max-num-seqs=3")
    assert "--cb-block-size 128" not in " ".join(own.command)
    assert own.batch_slots == 3


@pytest.mark.parametrize(("arguments", "source"), [(["--port=1"], "a"), ([], "org/model@v2"), ([], "a:b.gguf")])
def test_what_it_would_take_otherwise_than_meant_is_refused(short_dir: Path, arguments: list[str], source: str) -> None:
    with pytest.raises(BadLaunch):
        launch(short_dir, *arguments, source=source)
