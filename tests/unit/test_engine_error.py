"""Engine errors: OpenAI's envelope, the same words for calls and lines, and ours where an engine's say nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.formats.answers import engine_error

SCORE = "/v1/score"


@pytest.mark.parametrize(
    ("status", "said", "wanted"),
    [
        (
            400,
            {"error": {"message": "no", "type": "BadRequestError", "param": "n", "code": 400}},
            {"message": "no", "type": "BadRequestError", "param": "n", "code": None},
        ),
        (
            404,
            {"error": {"message": "no such model", "type": "NotFoundError", "param": None, "code": 404}},
            {"message": "no such model", "type": "NotFoundError", "param": None, "code": "model_not_found"},
        ),
        (
            400,
            {"error": {"message": "no", "type": "t", "code": "context_length_exceeded"}},
            {"message": "no", "type": "t", "param": None, "code": "context_length_exceeded"},
        ),
        (
            400,
            {"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error", "n_ctx": 512}},
            {
                "message": "too long",
                "type": "exceed_context_size_error",
                "param": None,
                "code": "context_length_exceeded",
            },
        ),
        (
            422,
            {"detail": "odd"},
            {"message": "odd", "type": "invalid_request_error", "param": None, "code": None},
        ),
        (
            500,
            {"object": "error", "message": "old", "type": "InternalServerError", "param": [], "code": 500},
            {"message": "old", "type": "InternalServerError", "param": None, "code": None},
        ),
        (
            422,
            {"error": "Input validation error: too long", "error_type": "validation"},
            {"message": "Input validation error: too long", "type": "validation", "param": None, "code": None},
        ),
        (
            404,
            {"error": {"message": "model 'x' not found", "type": "not_found_error", "param": None, "code": None}},
            {"message": "model 'x' not found", "type": "not_found_error", "param": None, "code": "model_not_found"},
        ),
        (
            422,
            {"detail": [{"loc": ["body", "n"], "msg": "must be 1"}, {"loc": ["body", "top_k"], "msg": "unknown"}]},
            {
                "message": "body.n: must be 1; body.top_k: unknown",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            },
        ),
    ],
)
def test_an_engines_error_gets_openais_envelope(status: int, said: object, wanted: object) -> None:
    assert json.loads(engine_error.reshaped(status, json.dumps(said).encode())) == {"error": wanted}


@given(st.integers(300, 599), st.binary(max_size=60))
def test_whatever_an_engine_says_becomes_an_envelope(status: int, said: bytes) -> None:
    error = json.loads(engine_error.reshaped(status, said))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"] is None or isinstance(error["code"], str)


@pytest.mark.parametrize(
    ("status", "said", "told"),
    [
        (404, b'{"detail":"Not Found"}', (404, "unsupported_endpoint")),
        (
            404,
            b'{"error":{"message":"Not Found","type":"Not Found","param":null,"code":404}}',
            (404, "unsupported_endpoint"),
        ),
        (404, b"404: Not Found", (404, "unsupported_endpoint")),
        (
            404,
            b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}',
            (404, "unsupported_endpoint"),
        ),
        (
            404,
            b'{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","code":404}}',
            (404, "model_not_found"),
        ),
        (
            501,
            b'{"error":{"message":"The model does not support Rerank (Score) API","code":501}}',
            (404, "unsupported_endpoint"),
        ),
        (400, b'{"detail":"Not Found"}', (400, None)),
        (401, b'{"error":"Unauthorized"}', (500, "internal_error")),
        (307, b"", (500, "internal_error")),
        (502, b"Bad Gateway", (502, "not_json")),
    ],
)
def test_what_an_engine_means_is_told_and_not_what_it_says(
    status: int, said: bytes, told: tuple[int, str | None]
) -> None:
    seen, body = engine_error.told(status, said, "tiny", SCORE)
    error = json.loads(body)["error"]
    assert (seen, error["code"]) == told
    if error["code"] == "unsupported_endpoint":
        assert error["message"] == "The model 'tiny' has no /v1/score."
    if error["code"] == "not_json":
        assert error["message"] == "Bad Gateway"
