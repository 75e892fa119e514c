"""How a pool's host starts a version: as an ordinary gpu worker, and which versions it can't start."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from penstock.domain.models.version import Definition, Version, VersionState, without_secrets
from penstock.domain.pools.pool import Pool, PoolKind, PoolMember
from penstock.domain.pools.situation import PoolTerms
from penstock.settings import Settings
from penstock_worker.engine import device_memory
from penstock_worker.pool import host_place
from penstock_worker.pool.member_launch import CannotBeMember, MemberLaunch, describe, why_not_here

SLEEPS = "--enable-sleep-mode"
VERSION = Version(
    "chat", 2, "chat@v2", Definition("/models/chat", "vllm", ("--seed=1",)), None, VersionState.DRAFT, False,
    datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip


def started(definition: Definition = VERSION.definition, pool: str = "p", **settings: int) -> MemberLaunch:
    """Its launch on a host with these settings, whose environment has a failpoint."""
    environment = {"HOME": "/root", "PENSTOCK_FAILPOINTS": "pool.decided=kill"}
    return describe(pool, replace(VERSION, definition=definition), Settings(**settings), environment)  # type: ignore[arg-type]


def test_a_member_is_an_ordinary_worker_of_its_versions_definition() -> None:
    command = started().command
    assert command[2:] == (
        "penstock_worker", "gpu", "--in-pool=2", "--model", "chat=/models/chat", "--engine", "vllm",
        "--engine-arg=--seed=1",
    )  # fmt: skip


def test_versions_and_pools_have_folders_of_their_own_with_short_paths_and_no_failpoint_of_the_hosts() -> None:
    one, other = started(), started(pool="q")
    assert one.folder != other.folder
    assert len(one.folder.name) == 10
    assert one.environment["PENSTOCK_RUNTIME_DIR"] == str(one.folder)
    assert "PENSTOCK_FAILPOINTS" not in one.environment
    assert one.socket.is_relative_to(one.folder)


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        (Definition("x", "none"), "No engine is called 'none' here."),
        (Definition("http://there", "remote"), "runs elsewhere"),
        (Definition("/lora", "vllm", base="chat"), "is an adapter"),
        (Definition("x", "vllm", without_secrets(("--hf-token", "very-secret"))), "is a secret"),
    ],
)
def test_what_no_host_can_start_is_said_in_a_sentence(definition: Definition, why: str) -> None:
    with pytest.raises(CannotBeMember, match=why):
        started(definition)


def test_a_host_whose_ingress_is_fixed_serves_a_pool_of_one_place_alone() -> None:
    def told(awake: int, definition: Definition = VERSION.definition, **settings: object) -> str:
        members = [PoolMember(replace(VERSION, queue=str(n), definition=definition)) for n in range(2)]
        pool = Pool(
            "p", PoolKind.SHARED, PoolTerms(awake=awake), tuple(members), "", "", None, None, VERSION.created_at
        )
        return why_not_here(pool, Settings(ingress_token=SecretStr("t" * 32), **settings))  # type: ignore[arg-type]

    assert told(2) == told(1, ingress_port=8400) == ""
    assert told(2, ingress_port=8400) == (
        "PENSTOCK_INGRESS_PORT is for one worker, and 2 members of pool p may live here at once, each with an ingress "
        "of its own: leave it out."
    )
    assert "PENSTOCK_INGRESS_URL" in told(2, ingress_url="http://here:8400")
    sleeper = Definition("/models/chat", "vllm", (SLEEPS,))
    assert told(1, sleeper, ingress_port=8400), "one is awake, and one sleeps"
    assert not told(1, sleeper, ingress_port=8400, pool_asleep=0)


def test_an_engine_sleeps_that_was_told_it_may_unless_the_host_lets_none() -> None:
    sleeper = Definition("/models/chat", "vllm", (SLEEPS,))
    assert started().sleep is None
    assert started(sleeper, pool_asleep=0).sleep is None
    found = started(sleeper)
    assert found.sleep is not None
    assert found.environment["VLLM_SERVER_DEV_MODE"] == "1"
    assert float(found.environment["PENSTOCK_BEAT_SECONDS"]) <= 0.5


def test_the_memory_of_all_cards_counts_and_one_that_does_not_tell_is_no_number() -> None:
    assert device_memory.read_used("1024\n512\n") == 1_536
    assert device_memory.read_used("[N/A]\n") is None
    assert device_memory.read_used("") is None


def test_a_hosts_place_is_its_own_until_it_ends_and_remembers_who_was_there(tmp_path: Path) -> None:
    host = uuid4()
    with host_place.held("p", tmp_path) as place:
        place.take(host)
        with pytest.raises(host_place.PlaceTaken, match="Another host of pool p"), host_place.held("p", tmp_path):
            pytest.fail("two hosts in one place")
        with host_place.held("q", tmp_path):
            pass
    with host_place.held("p", tmp_path) as place:
        assert place.earlier == host
        place.leave()
        assert place.earlier is None
