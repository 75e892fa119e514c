"""Settings: what an environment may say, and what the old names are answered with."""

from __future__ import annotations

import pytest

from penstock.settings import Settings, load
from penstock.settings.misread import RENAMED
from penstock_worker.engine.vllm import idle_yield, step_time_slicing


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_an_error_that_says_the_new_one(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"PENSTOCK_{old}", "1")
    with pytest.raises(SystemExit) as stop:
        load()
    assert f"PENSTOCK_{old} is now PENSTOCK_{new}" in str(stop.value)
    assert "\n" not in str(stop.value)


def test_each_old_name_leads_to_a_setting_that_is_there() -> None:
    engines = {variable.removeprefix("PENSTOCK_") for variable in (idle_yield.VARIABLE, step_time_slicing.VARIABLE)}
    known = engines | {name.upper() for name in Settings.model_fields}
    assert set(RENAMED.values()) <= known
    assert not RENAMED.keys() & known


def test_a_name_that_is_no_setting_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_URL", "http://127.0.0.1:8000")
    monkeypatch.setenv("PENSTOCK_SOMETHING_OF_MINE", "1")
    assert load() == Settings()
    assert capsys.readouterr().err == ""


def test_a_name_that_is_nearly_a_setting_is_warned_of_with_that_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_SWEEP_SECOND", "1")
    load()
    assert capsys.readouterr().err == (
        "penstock: warning: PENSTOCK_SWEEP_SECOND is no setting and changes nothing. Is it PENSTOCK_SWEEP_SECONDS?\n"
    )


BAD = {int: "many", float: "long", bool: "perhaps"}
WORDS = {int: "a whole number", float: "a number", bool: "true or false"}
KINDS = {
    name: next((kind for kind in (bool, int, float) if field.annotation in (kind, kind | None)), str)
    for name, field in Settings.model_fields.items()
}
TOLD = {
    "database_url": ("mysql://there/db", "an address like postgresql://user@host:5432/name"),
    "redis_url": ("there:6379", "an address like redis://host:6379/0"),
    "blob_url": ("/folder", "an address like file:///folder or s3://bucket/prefix"),
    "outbound_ports": ("443,https", "ports, by comma"),
    "outbound_allow": ("300.0.0.0/8", "networks (CIDRs), by comma"),
    "log_level": ("loud", "debug, info, warning or error"),
    "trusted_proxies": ("proxy.local", "addresses or networks, by comma"),
}


def stopped(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(f"PENSTOCK_{name.upper()}", value)
    with pytest.raises(SystemExit) as stop:
        load()
    assert "\n" not in str(stop.value)
    return str(stop.value)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind is not str])
def test_a_value_of_the_wrong_kind_is_one_line_with_name_value_and_what_it_must_be(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = BAD[KINDS[name]]
    shown = f"penstock: PENSTOCK_{name.upper()} is {value!r}: it must be {WORDS[KINDS[name]]}."
    assert stopped(name, value, monkeypatch) == shown


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind in (int, float)])
def test_no_setting_takes_a_number_below_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "it must be " in stopped(name, "-1", monkeypatch)
    if KINDS[name] is float:
        assert "it must be " in stopped(name, "inf", monkeypatch)


NOTHING_IS_FINE = {
    "batches_seconds", "cache_answer_bytes", "cache_bytes", "call_pack_seconds", "call_wait_seconds",
    "close_grace_seconds", "engine_gpus", "erasure_late_seconds", "events_seconds", "ingress_grace_seconds",
    "ingress_port", "keep_alive_seconds", "key_cache_seconds", "key_stale_seconds", "max_api_keys", "max_estimates",
    "max_eval_comparisons", "max_eval_runs", "max_evals", "max_files", "max_inline_bytes", "max_inline_requests",
    "max_open_batches", "max_open_eval_runs", "max_queued_lines", "max_queued_tokens", "max_requests_per_minute",
    "max_stored_bytes", "max_tokens_per_minute", "max_upload_bytes", "max_wait_seconds", "max_webhook_endpoints",
    "pieces_seconds", "poison_call_seconds", "pool_asleep", "pool_memory_seconds", "pool_sleep_frees",
    "promote_slack_seconds", "promoted_share", "tenant_calls", "tenant_sequences", "trail_seconds",
    "unfinished_blob_seconds", "wake_calls", "webhook_answer_kept_bytes",
}  # fmt: skip
"""Where 0 says something: none are let in, or not at all, or at once. Anything else needs some of it to work."""
NUMBERS = [name for name, kind in KINDS.items() if kind in (int, float)]


@pytest.mark.parametrize("name", NUMBERS)
def test_nothing_is_refused_where_something_is_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NOTHING_IS_FINE:
        monkeypatch.setenv(f"PENSTOCK_{name.upper()}", "0")
        assert getattr(load(), name) == 0
    else:
        assert "is '0': it must be " in stopped(name, "0", monkeypatch)


@pytest.mark.parametrize("name", NUMBERS)
def test_no_setting_takes_more_than_can_be_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert " or less." in stopped(name, "9" * 20, monkeypatch)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("ingress_port", "65536", "65535 or less"),
        ("max_file_lines", "4294967296", "4294967295 or less"),
        ("kv_high", "1.5", "1 or less"),
        ("lease_seconds", "4000000000", "3162240000 or less"),
        ("webhook_waits_seconds", "[0, -1]", "0 or more"),
        ("webhook_waits_seconds", "[0, 1e300]", "3162240000 or less"),
    ],
)
def test_a_number_beyond_its_bounds_is_told(
    name: str, value: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stopped(name, value, monkeypatch).endswith(f"it must be {wanted}.")


@pytest.mark.parametrize(("name", "value", "wanted"), [(name, *told) for name, told in TOLD.items()])
def test_a_text_that_is_none_of_its_kind_is_told(
    name: str, value: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"penstock: PENSTOCK_{name.upper()} is {value!r}: it must be {wanted}."
    assert stopped(name, value, monkeypatch) == line


def test_what_is_secret_is_not_shown_and_all_faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_API_TURNS", "0")
    told = stopped("bootstrap_key", "hunter2", monkeypatch)
    assert told == (
        "penstock: PENSTOCK_BOOTSTRAP_KEY must be 16 or more printable ASCII characters, without spaces; "
        "PENSTOCK_API_TURNS is '0': it must be 1 or more."
    )
    monkeypatch.delenv("PENSTOCK_BOOTSTRAP_KEY")
    monkeypatch.delenv("PENSTOCK_API_TURNS")
    told = stopped("database_url", "postgresq://me:hunter2@there/db", monkeypatch)
    assert told == "penstock: PENSTOCK_DATABASE_URL must be an address like postgresql://user@host:5432/name."


def test_what_must_be_json_and_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = stopped("webhook_waits_seconds", "soon", monkeypatch)
    assert told == "penstock: PENSTOCK_WEBHOOK_WAITS_SECONDS must be JSON."


@pytest.mark.parametrize("name", ["database_url", "redis_url"])
def test_an_address_with_a_port_that_is_none_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = "postgresql" if name == "database_url" else "redis"
    assert "must be an address like" in stopped(name, f"{scheme}://there:notaport/x", monkeypatch)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql:///x?foo=bar", "without foo, which libpq does not know"),
        ("postgresql://me:p%zz@there/x", "that libpq can read"),
    ],
)
def test_an_address_that_libpq_refuses_is_told_without_its_password(
    url: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = stopped("database_url", url, monkeypatch)
    assert told.endswith(f"must be an address {wanted}.")
    assert "p%zz" not in told
