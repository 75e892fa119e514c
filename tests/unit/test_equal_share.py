"""Equal shares: whoever holds little always finds a place, and nobody takes more than there is."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.limits.equal_share import kept, may_take


def test_a_tenant_alone_may_take_all_but_what_is_kept_for_the_next() -> None:
    held = Counter[str]()
    while may_take("a", held, held.total(), 160):
        held["a"] += 1
    assert held["a"] == 150


def test_whoever_comes_then_finds_the_last_places_one_after_the_other() -> None:
    held = Counter({"a": 150})
    for tenant in "bcdefghijk":
        assert may_take(tenant, held, held.total(), 160)
        held[tenant] += 1
    assert held.total() == 160
    assert not may_take("l", held, held.total(), 160)


def test_others_work_in_the_same_places_takes_nothing_from_a_tenants_share() -> None:
    assert may_take("a", {"a": 14}, 256 + 14, 288), "a lone tenant's calls beside a full batch"
    assert not may_take("a", {"a": 144}, 144 + 140, 288)


@given(st.lists(st.sampled_from("abcdef"), max_size=80), st.integers(0, 40), st.integers(0, 8))
def test_there_are_never_more_than_the_places_and_a_newcomer_finds_one_while_any_is_kept(
    comers: list[str], places: int, others: int
) -> None:
    held = Counter[str]()
    for tenant in comers:
        room = may_take(tenant, held, held.total() + others, places)
        assert not room or held.total() + others < places
        if held.total() + others < places and not held[tenant]:
            assert room, "whoever holds none finds one"
        if room:
            held[tenant] += 1
    assert held.total() <= max(0, places)
    if len(held) == 1 and not others:
        assert held.total() <= max(places - kept(places), places // 2, min(places, 1))
