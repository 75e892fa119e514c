"""Secret keys: the first seals, all open; what can't be opened says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from penstock.app import create_app
from penstock.domain.api_errors import Unavailable
from penstock.domain.webhook import secret_of
from penstock.service.webhooks import secret_keys
from penstock.service.webhooks.secret_keys import SecretKeys, SecretUnreadable
from penstock.settings import Settings

SECRET = secret_of(bytes(range(32)))
OLD, NEW = secret_keys.new_key(), secret_keys.new_key()


def test_a_sealed_secret_shows_only_its_key_and_its_last_four_characters() -> None:
    sealed = SecretKeys([OLD]).seal(SECRET)
    assert sealed.hint == SECRET[-4:]
    assert sealed.text.startswith(f"fernet:{SecretKeys([OLD]).first}:")
    assert SECRET not in sealed.text
    assert sealed.text != SecretKeys([OLD]).seal(SECRET).text
    assert SecretKeys([OLD]).open(sealed.text) == SECRET


def test_the_first_key_seals_and_all_open() -> None:
    both = SecretKeys([NEW, OLD])
    old = SecretKeys([OLD]).seal(SECRET).text
    assert both.open(old) == both.open(both.seal(SECRET).text) == SECRET
    assert SecretKeys([NEW]).open(both.seal(SECRET).text) == SECRET


def test_what_was_kept_in_clear_before_is_read() -> None:
    assert SecretKeys([]).open(SECRET) == SECRET


def test_a_missing_key_is_named_by_its_id_and_what_was_changed_is_refused() -> None:
    sealed = SecretKeys([OLD]).seal(SECRET).text
    with pytest.raises(SecretUnreadable, match=str(SecretKeys([OLD]).first)):
        SecretKeys([NEW]).open(sealed)
    with pytest.raises(SecretUnreadable, match="is not what the key"):
        SecretKeys([OLD]).open(sealed[:-8] + "AAAAAAA=")


def test_without_a_key_nothing_is_sealed() -> None:
    with pytest.raises(Unavailable):
        SecretKeys([]).seal(SECRET)


def test_a_key_that_is_none_is_refused_without_being_repeated() -> None:
    with pytest.raises(ValueError, match="base64") as refused:
        SecretKeys(["the-password"])
    assert "the-password" not in str(refused.value)


@pytest.mark.parametrize("given", [{"secret_keys": SecretStr("the-password")}, {"secret_keys_file": Path("/none")}])
def test_a_process_does_not_start_with_keys_that_it_cannot_read(given: dict[str, object]) -> None:
    settings = Settings(**{"secret_keys": None} | given)  # type: ignore[arg-type]
    with pytest.raises(SystemExit, match="penstock: the secret keys can't be read") as ended:
        create_app(settings)
    assert "the-password" not in str(ended.value)


def test_keys_come_from_the_environment_then_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{OLD}\n\n")
    keys = secret_keys.of(Settings(secret_keys=SecretStr(f" {NEW}, "), secret_keys_file=file))
    assert keys.ids == (SecretKeys([NEW]).first, SecretKeys([OLD]).first)
