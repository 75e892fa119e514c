"""The registry: what names stand for, how shares are parted, and what a guard takes for worse."""

from __future__ import annotations

import pytest

from penstock.domain.accounts.access import allows
from penstock.domain.api_errors import BadRequest
from penstock.domain.models.alias import Split, check_alias, place_of_batch
from penstock.domain.models.guard import GuardTerms, Outcomes, fault
from penstock.domain.models.registry import ModelTarget, Numbered, Registry, UnknownTarget
from penstock.domain.models.version import VersionState, without_secrets

READY, RETIRED = VersionState.READY, VersionState.RETIRED
REGISTRY = Registry(
    {"chat", "new", "odd@v2"},
    {"chat": {1: Numbered("chat", READY), 2: Numbered("chat@v2", READY), 3: Numbered("chat@v3", RETIRED)}},
    {"chat": {"stable": Split.of({1: 90, 2: 10}), "canary": Split.of({2: 100})}},
)


@pytest.mark.parametrize(
    ("asked", "place", "queue", "number"),
    [
        ("chat", 9.9, "chat@v2", 2),
        ("chat", 10.0, "chat", 1),
        ("chat@stable", 99.9, "chat", 1),
        ("chat@canary", 99.9, "chat@v2", 2),
        ("chat@v1", 0.0, "chat", 1),
        ("new", 50.0, "new", None),
        ("odd@v2", 50.0, "odd@v2", None),
    ],
)
def test_a_name_stands_for_its_stable_and_what_follows_the_at_for_what_it_says(
    asked: str, place: float, queue: str, number: int | None
) -> None:
    name = "odd@v2" if asked == "odd@v2" else asked.partition("@")[0]
    assert REGISTRY.resolve(asked, place) == ModelTarget(name, queue, number)


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ("none", "model_not_found", "does not exist"),
        ("none@v1", "model_not_found", "does not exist"),
        ("chat@v9", "version_not_found", "There are: v1, v2."),
        ("chat@v3", "version_retired", "chat@v3 is retired"),
        ("chat@beta", "alias_not_found", "There are: canary, stable"),
        ("new@v1", "version_not_found", "none yet"),
    ],
)
def test_what_stands_for_nothing_is_told_with_what_there_is(asked: str, code: str, words: str) -> None:
    with pytest.raises(UnknownTarget) as refused:
        REGISTRY.resolve(asked, 0)
    assert refused.value.code == code
    assert words in refused.value.message


def test_whoever_has_the_new_version_keeps_it_while_its_share_grows() -> None:
    places = [place_of_batch(f"batch_{number}", "chat") for number in range(4_000)]
    had: set[float] = set()
    for weight in (1, 10, 50, 100):
        split = Split.of({1: 100 - weight, 2: weight})
        have = {place for place in places if split.pick(place) == 2}
        assert had <= have
        assert abs(len(have) / len(places) - weight / 100) < 0.03
        had = have


def test_a_split_adds_up_and_an_alias_is_no_version() -> None:
    for weights in ({1: 90, 2: 20}, {1: 99}, {}, {1: 150, 2: -50}, dict.fromkeys(range(1, 12), 0)):
        with pytest.raises(BadRequest):
            Split.of(weights)
    assert Split.of({2: 0, 1: 100}).weights == {1: 100}
    for alias in ("v2", "Stable", "", "a" * 41, "a b"):
        with pytest.raises(BadRequest):
            check_alias(alias)


def test_a_key_for_a_model_may_ask_its_versions_and_aliases_and_no_other_model() -> None:
    allowed = frozenset({"chat"})
    assert all(allows(allowed, name) for name in ("chat", "chat@v2", "chat@canary"))
    assert not any(allows(allowed, name) for name in ("chat2", "chat2@v1", "org/chat@v1", "@chat", "chat@v1@v2"))


def test_arguments_that_look_like_secrets_are_not_kept() -> None:
    given = ("--api-key", "s3cret", "--hf-token=abc", "--seed", "1", "--flag-key", "--max-tokens=3")
    assert without_secrets(given) == ("--api-key", "…", "--hf-token=…", "--seed", "1", "--flag-key", "--max-tokens=…")


def test_a_guard_accuses_what_is_worse_beyond_chance_and_sees_enough_first() -> None:
    terms = GuardTerms(100, 2.0)
    good = Outcomes(lines=5_000, calls=5_000, errors=50, empty=25, slow=50)
    assert fault(Outcomes(lines=200, calls=200, errors=40), good, terms) == (
        "10.0 % errors of 400, against 0.5 % of 10000"
    )
    assert fault(Outcomes(lines=50, calls=49, errors=99), good, terms) is None, "too few"
    assert fault(Outcomes(lines=500, calls=500, errors=7), good, terms) is None, "within chance"
    assert fault(Outcomes(lines=90_000, calls=90_000, errors=3_600), good, terms) is None, "less than two points more"
    assert "empty answers" in str(fault(Outcomes(lines=300, empty=60), good, terms))
    assert "slower than promised" in str(fault(Outcomes(calls=300, slow=60), good, terms))
    assert fault(good, good, terms) is None
