"""An engine gets what the client wrote, except for what only an operator may say."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.work.rank import Rank
from penstock.formats.engine_body import CallBody, for_call, for_line, with_priority

CHAT = "/v1/chat/completions"
OPERATORS = ("priority", "service_tier", "request_id", "kv_transfer_params", "ec_transfer_params")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
names = st.text(max_size=6) | st.sampled_from([*OPERATORS, "caches", "model_", "priority "])
plain = {"model", "cache", "service_tier", "cache_salt", "background", "vllm_xargs"}


def call(fields: object, endpoint: str = CHAT, tenant: str = "a", isolate: bool = False) -> CallBody:
    return for_call(fields if isinstance(fields, bytes) else json.dumps(fields).encode(), endpoint, tenant, isolate)


def salt(fields: object, tenant: str, isolate: bool = True, endpoint: str = CHAT) -> str | None:
    return json.loads(call(fields, endpoint, tenant, isolate).body).get("cache_salt")


@given(st.dictionaries(names.filter(lambda name: name not in plain), values, max_size=6), st.booleans())
def test_every_field_that_is_not_an_operators_arrives_as_it_was_written(fields: dict, escaped: bool) -> None:
    written = json.dumps(fields, ensure_ascii=escaped).encode()
    wanted = {name: value for name, value in fields.items() if name not in OPERATORS}
    assert json.loads(for_call(written, CHAT, "a", isolate=False).body) == wanted
    assert json.loads(for_line(written, CHAT, "a", False, None)) == wanted
    ranked = json.loads(for_line(written, CHAT, "a", True, Rank.FLEX.priority()))
    assert (ranked.pop("priority"), len(ranked.pop("cache_salt"))) == (8, 32)
    assert ranked == wanted


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","priority":-9,"seed":1}',
        b'{"priority":1,"model":"m","service_tier":"flex","priority":2,"seed":1}',
        b'{"model":"m","\\u0070riority":-9,"seed":1}',
        b'{"model":"m","serv\\u0069ce_t\\u0069er":"priority","seed":1}',
        b'{"model":"m","request_id":"mine","kv_transfer_params":{"remote_host":"10.0.0.1"},"seed":1}',
        b'{"model":"m","ec_transfer_params":{},"seed":1}',
        b'{"model":"m","cache":{"mode":"on"},"seed":1}',
    ],
)
def test_nobody_sets_what_only_the_operator_may_however_it_is_spelt(body: bytes) -> None:
    assert (
        json.loads(call(body).body) == json.loads(for_line(body, CHAT, "a", False, None)) == {"model": "m", "seed": 1}
    )


@pytest.mark.parametrize("name", ["kv_transfer_params", "ec_transfer_params", "kv_transfer\\u005fparams"])
def test_transfer_parameters_do_not_hide_in_extension_arguments(name: str) -> None:
    body = b'{"vllm_xargs":{"mine":1e999,"%b":"x"},"model":"m"}' % name.encode()
    assert call(body).body == for_line(body, CHAT, "a", False, None) == b'{"vllm_xargs":{"mine":1e999},"model":"m"}'


@pytest.mark.parametrize("xargs", [b"[1]", b'{"mine":"x"}', b"null", b"3"])
def test_other_extension_arguments_pass(xargs: bytes) -> None:
    body = b'{"model":"m","vllm_xargs":%b}' % xargs
    assert call(body).body == body


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"9" * 400, b"1" + b"0" * 5_000, b"0.1e-400"])
def test_numbers_stay_as_the_client_wrote_them(number: bytes) -> None:
    body = b'{"model":"m","priority":1,"x":' + number + b',"max_tokens":' + number + b"}"
    wanted = b'{"model":"m","x":' + number + b',"max_tokens":' + number + b"}"
    assert call(body).body == wanted
    assert for_line(body, CHAT, "a", False, None) == wanted


def test_a_body_with_nothing_to_take_out_is_not_touched() -> None:
    body = b' {\n "model": "m", "messages": [], "a":1, "a":2 }\n'
    assert call(body).body is body
    assert for_line(body, CHAT, "a", False, None) is body


@pytest.mark.parametrize("body", [b"{}", b" { } ", b'{"a":1}', b'\n{\t"a" : 1}'])
def test_a_rank_is_said_at_the_front_of_any_object(body: bytes) -> None:
    assert json.loads(with_priority(body, Rank.STANDARD.priority())) == {"priority": 6, **json.loads(body)}


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"a":NaN}', b"\xff", b'"{}"', b"[" * 100_000, b"{1:2}"])
def test_what_is_no_object_is_refused_with_a_sentence(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^The body .*\.$"):
        call(body)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_call_or_a_value_error(body: bytes) -> None:
    for isolate in (True, False):
        try:
            made = for_call(body, CHAT, "a", isolate)
        except ValueError:
            continue
        assert isinstance(msgspec.json.decode(made.body, type=dict[str, msgspec.Raw]), dict)


@given(st.text('{}[]:,"\\u0 1e9ab', max_size=30).map(lambda text: b'{"cache_salt"' + text.encode()))
def test_any_salt_is_a_salt_or_a_value_error(body: bytes) -> None:
    try:
        made = for_call(body, CHAT, "a", True)
    except ValueError:
        return
    assert len(msgspec.json.decode(made.body, type=dict[str, msgspec.Raw])["cache_salt"]) == 34


def test_what_routing_needs_is_read() -> None:
    fields = {"model": "m", "stream": True, "service_tier": "flex", "user": "u", "max_tokens": 7, "messages": []}
    made = call(fields)
    assert (made.model, made.stream, made.tier, made.user, made.max_tokens) == ("m", True, "flex", "u", 7)
    none = call({"model": None, "stream": None, "service_tier": None, "user": 3, "max_tokens": True})
    assert (none.model, none.stream, none.tier, none.user, none.max_tokens) == (None, False, None, None, None)
    assert call({"stream": "true"}).stream
    assert call({"stream": 1}).stream


@pytest.mark.parametrize("fields", [{"model": 3}, {"model": ["m"]}, {"service_tier": 1}, {"background": True}])
def test_what_no_call_may_be_is_refused(fields: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        call(fields, "/v1/responses")


def test_tenants_caches_are_apart_and_a_tenants_own_calls_and_lines_share_one() -> None:
    assert salt({}, "a") == salt({}, "a") == salt({"cache_salt": None}, "a")
    assert salt({}, "a") != salt({}, "b")
    assert salt({}, "a") == json.loads(for_line(b"{}", CHAT, "a", True, None))["cache_salt"]


def test_a_salt_of_ones_own_is_kept_apart_from_the_same_of_another_tenant() -> None:
    theirs = salt({}, "b")
    assert len({salt({"cache_salt": theirs}, "a"), theirs, salt({"cache_salt": "x"}, "a"), salt({}, "a")}) == 4
    assert salt({"cache_salt": "x"}, "a", isolate=False) == salt({"cache_salt": "x"}, "a") != "x"
    assert salt({"cache_salt": "x"}, "a") != salt({"cache_salt": "x"}, "b")
    assert salt({}, "a", isolate=False) is None
    assert for_line(b'{"cache_salt":"x"}', CHAT, "a", True, None) == call({"cache_salt": "x"}, isolate=True).body


@pytest.mark.parametrize("endpoint", ["/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/score", "/v1/rerank"])
def test_every_endpoint_with_a_cache_is_salted(endpoint: str) -> None:
    assert salt({}, "a", endpoint=endpoint)
    assert call({}, "/tokenize", isolate=True).body == b"{}"


@pytest.mark.parametrize("given", ["", "a@b", "a/b", "a\\b", "a\0b", "x" * 129, 3, [], 1e300])
def test_a_salt_that_the_engine_would_refuse_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="cache_salt"):
        salt({"cache_salt": given}, "a")
    with pytest.raises(ValueError, match="cache_salt"):
        call(b'{"cache_salt":1e999}')


def test_calls_with_a_long_common_beginning_share_a_prefix() -> None:
    def prefix(question: str, **more: object) -> bytes:
        messages = [{"role": "system", "content": "s" * 1_200}, {"role": "user", "content": question}]
        return call({"model": "m", "messages": messages, **more}).prefix

    assert len(prefix("why?")) == 1_024
    assert prefix("why?") == prefix("how?", temperature=0.5)
    assert prefix("why?", tools=[{"type": "function", "function": {"name": "f"}}]) != prefix("why?")
    assert len(prefix("w" * 100_000)) == 4_096
    assert call({"messages": [{"role": "user", "content": "short"}]}).prefix == b""
    assert call({"instructions": "i" * 300, "input": "x"}, "/v1/responses").prefix
