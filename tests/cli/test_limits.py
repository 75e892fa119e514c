"""`penstock limits`: set, shown, in force at a live API; a wrong value is one clear line and changes nothing."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from cli.conftest import Penstock

from penstock.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nothing is remembered, so that what is set is in force at once."""
    return settings.model_copy(update={"key_cache_seconds": 0.0})


def rows(penstock: Penstock, *arguments: str) -> dict[str, str]:
    """What `show` says is set, by name."""
    shown = penstock("limits", "show", *arguments)
    assert shown.exit_code == 0, shown.output
    return {line.split()[0]: line.split()[1] for line in shown.stdout.splitlines()[1:] if not line.startswith("budget")}


def key_of(penstock: Penstock, tenant: str) -> tuple[str, str]:
    """A key's id, and the key."""
    key = penstock("keys", "create", "for tests", "--tenant", tenant).stdout.strip()
    return penstock("keys", "list", "--tenant", tenant).stdout.splitlines()[1].split()[0], key


def told(client: httpx.Client, key: str) -> dict[tuple[str, str], int | None]:
    """What its API says to the key."""
    found = client.get("/v1/limits", headers={"authorization": f"Bearer {key}"}).raise_for_status().json()["data"]
    return {(one["scope"], one["name"]): one["limit"] for one in found}


def test_limits_of_a_tenant_are_set_shown_in_force_and_taken_back(penstock: Penstock, client: httpx.Client) -> None:
    _, key = key_of(penstock, "acme")
    before = told(client, key)
    assert set(rows(penstock, "acme").values()) == {"-"}
    done = penstock("limits", "set", "acme", "requests_per_minute=600", "files=0")
    assert (done.exit_code, done.stdout) == (0, "set for acme: requests_per_minute=600, files=0\n")
    assert {name: value for name, value in rows(penstock, "acme").items() if value != "-"} == {
        "requests_per_minute": "600",
        "files": "0",
    }
    assert told(client, key) == before | {("tenant", "requests_per_minute"): 600, ("tenant", "files"): 0}
    assert penstock("limits", "set", "acme", "requests_per_minute=default", "files=default").exit_code == 0
    assert told(client, key) == before


def test_limits_of_a_key_are_its_own(penstock: Penstock, client: httpx.Client) -> None:
    id, key = key_of(penstock, "acme")
    assert penstock("limits", "set", "acme", "calls_at_once=3", "--key", id).exit_code == 0
    assert rows(penstock, "acme", "--key", id) == {
        "requests_per_minute": "-",
        "tokens_per_minute": "-",
        "calls_at_once": "3",
        "sequences_at_once": "-",
        "waits_at_once": "-",
    }
    assert rows(penstock, "acme")["calls_at_once"] == "-"
    assert told(client, key)["key", "calls_at_once"] == 3


def test_a_budget_is_set_shown_and_taken_away(penstock: Penstock, client: httpx.Client) -> None:
    _, key = key_of(penstock, "acme")
    assert penstock("limits", "budget", "acme", "250.50").stdout == "acme may spend 250.50 a month\n"
    assert "budget of this month: 0 of 250.5 used" in penstock("limits", "show", "acme").stdout
    headers = {"authorization": f"Bearer {key}"}
    assert client.get("/v1/limits", headers=headers).json()["budget"]["limit"] == "250.5"
    assert penstock("limits", "budget", "acme", "none").stdout == "acme has no budget\n"
    assert "budget" not in penstock("limits", "show", "acme").stdout
    assert client.get("/v1/limits", headers=headers).json()["budget"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "acme", "speed=3"), "No such limit: 'speed'. There are requests_per_minute, "),
        (("set", "acme", "files"), "Write name=number or name=default, not 'files'."),
        (("set", "acme", "files=many"), "Write name=number or name=default, not 'files=many'."),
        (("set", "acme", "files=-1"), "Write name=number or name=default, not 'files=-1'."),
        (("set", "acme", "files=1.5"), "Write name=number or name=default, not 'files=1.5'."),
        (("set", "acme", "files=٣"), "Write name=number or name=default, not 'files=٣'."),
        (("set", "acme", "files=" + "9" * 20), "files is a whole number from 0 to 9007199254740991."),
        (("set", "acme", "files=" + "9" * 5_000), "Write name=number or name=default, not 'files=9999"),
        (("set", "acme", "files=7", "speed=3"), "No such limit: 'speed'."),
        (("set", "nobody", "files=1"), "No such tenant: 'nobody'."),
        (("set", "acme", "files=1", "--key", "key_none"), "No such limit: 'files'. There are calls_at_once, "),
        (("set", "acme", "calls_at_once=1", "--key", "key_none"), "No such key: 'key_none'."),
        (("show", "nobody"), "No such tenant: 'nobody'."),
        (("show", "acme", "--key", "key_none"), "No such key: 'key_none'."),
        (("budget", "acme", "ten"), "monthly_budget "),
        (("budget", "acme", "--", "-1"), "monthly_budget "),
        (("budget", "acme", "nan"), "monthly_budget "),
        (("budget", "acme", "1e999999"), "monthly_budget "),
        (("budget", "nobody", "1"), "No such tenant: 'nobody'."),
    ],
)
def test_what_is_no_limit_is_one_clear_line_and_changes_nothing(
    penstock: Penstock, arguments: tuple[str, ...], words: str
) -> None:
    key_of(penstock, "acme")
    done = penstock("limits", *arguments)
    assert done.exit_code == 1, done.output
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"penstock: {words}"), done.stderr
    assert len(done.stderr) < 400
    assert set(rows(penstock, "acme").values()) == {"-"}
    assert "budget" not in penstock("limits", "show", "acme").stdout


def test_a_client_sees_what_it_may_do_and_what_is_left_of_it(penstock: Penstock) -> None:
    assert penstock("limits", "set", "default", "files=7").exit_code == 0
    done = penstock("limits", "mine")
    assert (done.exit_code, bool(re.search(r"files +tenant +0 +7 +7 ", done.stdout))) == (0, True), done.output
    found = json.loads(penstock("limits", "mine", "--json").stdout)
    assert next(one for one in found["data"] if one["name"] == "files")["remaining"] == 7
