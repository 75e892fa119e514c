"""Which engine a command line means: profiles by name, and addresses only for those that run elsewhere."""

from __future__ import annotations

import pytest

from penstock.cli.places.options import PlaceOptions
from penstock.domain.engines.profiles import OLLAMA, REMOTE, SGLANG, VLLM
from penstock.stack.chosen_model import parse_model
from penstock.stack.problem import Problem

URL = "http://127.0.0.1:9"


def test_an_engine_elsewhere_is_named_with_its_model_and_its_address() -> None:
    assert parse_model(f"gpt={URL}/", SGLANG) == ("gpt", URL)
    assert parse_model("org/name=with/equals=" + URL, VLLM)[0] == "org/name"
    for text in ("tiny", URL, f"={URL}", "gpt=/models/gpt", None):
        with pytest.raises(Problem, match="say --model NAME=http://HOST:PORT"):
            parse_model(text, SGLANG)


def test_run_and_map_take_what_leads_elsewhere_only_with_an_address_and_know_which_kind_it_is() -> None:
    assert PlaceOptions(engine_url=URL).profile is REMOTE
    assert PlaceOptions(engine_url=URL, engine="ollama").profile is OLLAMA
    PlaceOptions(engine_url=URL, engine="ollama").check()
    assert PlaceOptions(model="tiny").profile is VLLM
    for options, why in (
        (PlaceOptions(engine="ollama", model="m"), "say where with --engine-url"),
        (PlaceOptions(engine="echo", engine_url=URL), "--engine echo goes not with --engine-url"),
        (PlaceOptions(engine="ollama", server=URL), "--engine ollama goes not with --server"),
    ):
        with pytest.raises(Problem, match=why):
            options.check()
