"""A rate over real API processes that share one Postgres and one Valkey; the full size is `make bench-limits`."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from faults.house import House
from faults.rush import rush

from penstock.service.admin import limits
from penstock.service.limits.rates import GRANTS

PER_MINUTE = 200


@pytest.fixture(scope="module")
def house(build: Callable[..., House]) -> House:
    """Two APIs and nobody else."""
    house = build(apis=2, keepers=0, ios=0, gpus=0, wait=False)
    house.wait_until_answering()
    return house


def test_processes_together_let_through_the_limit_and_no_more_than_the_stated_bound(house: House) -> None:
    key = house.key_of("acme")
    house.run(limits.change, "acme", {"requests_per_minute": PER_MINUTE})
    found = rush(house.urls, key, 10 * PER_MINUTE)
    assert found.answers.keys() == {200, 429}
    assert PER_MINUTE <= found.let_through <= found.bound(PER_MINUTE)


@pytest.mark.slow
def test_a_process_that_is_killed_takes_at_most_one_grant_with_it_and_leaves_at_most_one_debt(house: House) -> None:
    key, grant = house.key_of("other"), PER_MINUTE // GRANTS
    house.run(limits.change, "other", {"requests_per_minute": PER_MINUTE})
    began = time.monotonic()
    first = rush(house.urls, key, 20)
    house.kill("api-2")
    rest = rush(house.urls[:1], key, 3 * PER_MINUTE)
    flowed_back = (time.monotonic() - began) * PER_MINUTE / 60
    assert first.let_through == 20
    let_through = first.let_through + rest.let_through
    assert PER_MINUTE - grant <= let_through <= PER_MINUTE + 2 * grant + flowed_back + 1
    house.start("api-2")
    house.wait_until_answering()
    assert rush(house.urls, house.key_of("third"), 50).answers == {200: 50}
