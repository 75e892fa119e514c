"""Settings: what an environment may say, and what the old names are answered with."""

from __future__ import annotations

import pytest

from penstock.settings import Settings, load
from penstock.settings.renamed import RENAMED
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


def test_a_name_that_is_no_setting_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_URL", "http://127.0.0.1:8000")
    monkeypatch.setenv("PENSTOCK_SOMETHING_OF_MINE", "1")
    assert load() == Settings()
