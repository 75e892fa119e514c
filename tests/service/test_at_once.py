"""What is held at once in one process: a tenant's limit, its key's, and others are not counted."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from penstock.domain.accounts.access import Access
from penstock.domain.api_errors import TooMany
from penstock.domain.limits.limit import LimitName
from penstock.service.limits.at_once import AtOnce
from penstock.settings import Settings

ACME, OTHER = Access("key_1", "acme"), Access("key_2", "other")


def test_a_tenant_has_a_limit_and_others_are_not_counted() -> None:
    all_held = AtOnce(Settings(max_waits=3))
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(all_held.held(ACME, LimitName.WAITS))
        with all_held.held(ACME, LimitName.WAITS):
            with pytest.raises(TooMany, match="waits_at_once of your tenant is 3"):
                stack.enter_context(all_held.held(ACME, LimitName.WAITS))
            with all_held.held(OTHER, LimitName.WAITS), all_held.held(ACME, LimitName.CALLS):
                pass
        stack.enter_context(all_held.held(ACME, LimitName.WAITS))
    assert all_held.of("acme", LimitName.WAITS) == all_held.of("key_1", LimitName.WAITS) == 0


def test_a_key_has_its_own_within_its_tenants() -> None:
    all_held = AtOnce(Settings())
    small = Access("key_1", "acme", key_limits={LimitName.CALLS: 1})
    with all_held.held(small, LimitName.CALLS), all_held.held(Access("key_3", "acme"), LimitName.CALLS):
        with pytest.raises(TooMany, match="calls_at_once of this key is 1"), all_held.held(small, LimitName.CALLS):
            pass
        assert all_held.of("acme", LimitName.CALLS) == 2


def test_what_grows_is_given_back_whole_and_a_refused_part_is_not_held() -> None:
    all_held = AtOnce(Settings(max_upload_bytes=10))
    with all_held.held(ACME, LimitName.UPLOAD_BYTES, 0) as held:
        held.grow(8)
        with pytest.raises(TooMany):
            held.grow(3)
        assert all_held.of("acme", LimitName.UPLOAD_BYTES) == 8
        held.grow(2)
    assert all_held.of("acme", LimitName.UPLOAD_BYTES) == 0


def test_a_call_of_more_texts_than_there_may_be_is_let_in_alone() -> None:
    all_held = AtOnce(Settings(tenant_sequences=10))
    with all_held.held(ACME, LimitName.SEQUENCES, 500):
        assert all_held.of("acme", LimitName.SEQUENCES) == 500
        with pytest.raises(TooMany, match="sequences_at_once"), all_held.held(ACME, LimitName.SEQUENCES, 1):
            pass
    with all_held.held(ACME, LimitName.SEQUENCES, 1):
        with pytest.raises(TooMany, match=r"is 10 .*, and 1 are there"), all_held.held(ACME, LimitName.SEQUENCES, 500):
            pass
        with all_held.held(ACME, LimitName.SEQUENCES, 9):
            pass


def test_a_limit_of_none_lets_none_in_alone_either() -> None:
    shut = Access("key_1", "acme", limits={LimitName.SEQUENCES: 0})
    with pytest.raises(TooMany, match="is 0: none are let in"), AtOnce(Settings()).held(shut, LimitName.SEQUENCES, 1):
        pass
