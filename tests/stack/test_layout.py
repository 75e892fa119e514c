"""The data folder: secrets are for their owner only, one platform at a time, and every obstacle is one clear line."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from penstock.service.webhooks.secret_keys import SecretKeys
from penstock.stack import layout as layouts
from penstock.stack.chosen_model import parse_model
from penstock.stack.problem import Problem


@pytest.fixture
def layout(tmp_path: Path) -> layouts.Layout:
    made = layouts.at(tmp_path / "data")
    made.make()
    return made


def test_the_key_is_made_once_and_only_its_owner_may_read_it(layout: layouts.Layout) -> None:
    key, made = layouts.api_key(layout, {})
    assert key.startswith("sk-penstock-")
    assert made
    assert stat.S_IMODE(layout.key_file.stat().st_mode) == 0o600
    assert layouts.api_key(layout, {}) == (key, False)


def test_a_key_from_the_environment_is_not_written_down(layout: layouts.Layout) -> None:
    assert layouts.api_key(layout, {"PENSTOCK_BOOTSTRAP_KEY": "sk-mine"}) == ("sk-mine", False)
    assert not layout.key_file.exists()


def test_a_key_file_that_was_opened_to_others_is_closed_again(layout: layouts.Layout) -> None:
    layout.key_file.write_text("sk-old\n")
    layout.key_file.chmod(0o644)
    assert layouts.api_key(layout, {}) == ("sk-old", False)
    assert stat.S_IMODE(layout.key_file.stat().st_mode) == 0o600


def test_flowers_password_is_kept_and_closed(layout: layouts.Layout) -> None:
    assert layouts.flower_password(layout) == layouts.flower_password(layout)
    assert stat.S_IMODE(layout.flower_password_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["ingress_token", "metrics_token"])
def test_a_token_is_made_once_and_closed_and_the_environments_wins(layout: layouts.Layout, name: str) -> None:
    given = getattr(layouts, name)
    token = given(layout, {})
    assert len(token) > 40
    assert given(layout, {}) == token
    assert stat.S_IMODE(getattr(layout, f"{name}_file").stat().st_mode) == 0o600
    assert given(layout, {f"PENSTOCK_{name.upper()}": "mine"}) == "mine"
    assert given(layout, {}) == token


def test_the_secret_keys_are_a_closed_file_unless_the_environment_has_some(layout: layouts.Layout) -> None:
    told = layouts.secret_keys(layout, {})
    assert told == layouts.secret_keys(layout, {}) == {"PENSTOCK_SECRET_KEYS_FILE": str(layout.secret_keys_file)}
    assert stat.S_IMODE(layout.secret_keys_file.stat().st_mode) == 0o600
    assert SecretKeys([layout.secret_keys_file.read_text().strip()]).first
    assert layouts.secret_keys(layout, {"PENSTOCK_SECRET_KEYS": "k"}) == {"PENSTOCK_SECRET_KEYS": "k"}


def test_a_second_platform_on_the_same_folder_is_refused_with_the_first_ones_process(layout: layouts.Layout) -> None:
    refused = pytest.raises(Problem, match=f"process {os.getpid()}")
    with layouts.held(layout), refused, layouts.held(layout):
        pass
    with layouts.held(layout):
        pass


def test_the_runtime_folder_is_short_private_and_the_same_each_time(tmp_path: Path) -> None:
    deep = layouts.at(tmp_path / ("deep" * 40))
    folder = layouts.runtime_folder(deep, {})
    try:
        assert folder == layouts.runtime_folder(deep, {})
        assert len(str(folder / "postgres" / ".s.PGSQL.5432")) < 80
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        folder.rmdir()


def test_a_data_folder_that_can_not_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem, match="can't be made"):
        layouts.at(tmp_path / "file" / "data").make()


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("tiny", "tiny", None),
        (None, "tiny", None),
        ("org/model", "org/model", "org/model"),
        ("mine=org/model", "mine", "org/model"),
    ],
)
def test_a_model_is_a_name_and_a_source(text: str | None, name: str, source: str | None) -> None:
    assert parse_model(text) == (name, source)


def test_a_model_folder_is_named_after_itself_unless_a_name_is_given(tmp_path: Path) -> None:
    folder = tmp_path / "llama=v2"
    folder.mkdir()
    assert parse_model(str(folder)) == ("llama=v2", str(folder))
    assert parse_model(f"chat={folder}") == ("chat", str(folder))
    with pytest.raises(Problem, match="There is no model folder"):
        parse_model(f"chat={tmp_path}/missing")
