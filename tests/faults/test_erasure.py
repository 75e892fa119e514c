"""Erasure while a worker runs a batch of the tenant, and with keepers that are killed between any two steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from e2e.live import chat
from faults.cases import further
from faults.house import House

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def house(build: Callable[..., House]) -> House:
    """One process of each kind; leases and what is late are short."""
    return build(
        engine_arguments=["--latency-ms=300"],
        lease_seconds="3",
        beat_seconds="1",
        worker_gone_seconds="4",
        slice_lines="20",
        key_cache_seconds="1",
        erasure_late_seconds="4",
    )


@pytest.fixture(autouse=True)
def awake(house: House) -> Iterator[None]:
    """The keeper lives, and has no failpoint."""
    yield
    if not house.lives("keeper-1"):
        house.start("keeper-1")
    house.wait_until_ready()


def rows(house: House) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with psycopg.connect(house.database_url, autocommit=True) as connection:
        names = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
        return {
            name: [row for (row,) in connection.execute(f"select t::text from {name} t").fetchall()]  # type: ignore[call-overload]
            for (name,) in names
        }


def left_of(house: House, words: set[str]) -> list[tuple[str, str]]:
    return [(name, row) for name, found in rows(house).items() for row in found if any(one in row for one in words)]


def blobs_of(house: House, tenant: str) -> list[str]:
    folder = house.blobs / tenant
    return [str(path) for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def running(house: House, tenant: str, lines: int = 6_000) -> set[str]:
    """Let a tenant have a batch that is being worked on; what names it."""
    client = house.client_of(tenant)
    batch = client.submit([chat(f"q{n}", "hello") for n in range(lines)])
    house.until(
        lambda: house.ask("select count(*) from segments g join slices s on s.id = g.slice where batch = %s", batch.id),
        "some of it is recorded",
    )
    return {
        tenant,
        batch.id,
        batch.input_file_id,
        *(row for (row,) in house.rows("select id from api_keys where tenant = %s", tenant)),
    }


def erase(house: House, tenant: str) -> subprocess.Popen[str]:
    """`penstock tenants erase`, as an operator types it."""
    environment = os.environ | {"PENSTOCK_DATABASE_URL": house.database_url}
    command = [sys.executable, "-m", "penstock.cli.main", "tenants", "erase", tenant, "--yes"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(house: House) -> Any:
    return house.ask("select count(*) = 0 from erasures where ended_at is null")


def test_a_tenant_is_erased_while_a_worker_runs_its_batch_and_the_other_ones_goes_on(house: House) -> None:
    of_acme = running(house, "acme")
    client = house.client_of("other")
    others = client.submit([chat(f"q{n}", "hello") for n in range(60)])
    before = {
        name: sum("traceback" in line.lower() or '"level": "error"' in line for line in log(house, name))
        for name in workers(house)
    }
    command = erase(house, "acme")
    house.until(
        lambda: house.ask("select count(*) from tenants where id = 'acme' and closed_at is null") == 0, "closed"
    )
    house.until(lambda: refused(house, house.key_of("acme")), "the key is refused", 5)
    said, _ = command.communicate(timeout=120)
    assert command.returncode == 0, said
    assert "done, " in said.splitlines()[-1]
    assert ", 1 cancelled" in said.splitlines()[-1], "it ran when it was closed"
    assert left_of(house, of_acme) == []
    assert client.ended(others.id).status == "completed"
    assert len(client.sdk.files.content(client.ended(others.id).output_file_id or "").text.splitlines()) == 60
    house.until(lambda: house.ask("select count(*) from leases where closed_at is null") == 0, "nothing is held")
    assert left_of(house, of_acme) == []
    assert blobs_of(house, "acme") == []
    assert blobs_of(house, "other") != []
    for name in workers(house):
        assert house.lives(name), house.tell(name)
        loud = [line for line in log(house, name) if "traceback" in line.lower() or '"level": "error"' in line]
        assert len(loud) == before[name], loud
    assert house.ask("select count(*) from audit where action = 'tenant.erased' and tenant = '' and actor = 'cli'") == 1


def workers(house: House) -> list[str]:
    return ["io-1", "gpu-1", "keeper-1", "api-1"]


def log(house: House, name: str) -> list[str]:
    return house.residents[name].log.read_text(errors="replace").splitlines()


def refused(house: House, key: str) -> bool:
    answer = httpx.get(
        f"{house.url}/v1/models", headers={"authorization": f"Bearer {key}"}, timeout=10, trust_env=False
    )
    return answer.status_code == 401


@pytest.mark.slow
@pytest.mark.parametrize("steps", [2, *further(1, 3, 5, 7)])
def test_a_keeper_that_is_killed_between_two_steps_leaves_the_rest_to_the_next(house: House, steps: int) -> None:
    tenant = f"killed-{steps}"
    words = running(house, tenant)
    house.kill("keeper-1")
    house.start("keeper-1", failpoints=f"erasure.stepped=kill@{steps}")
    command = erase(house, tenant)
    house.until(lambda: not house.lives("keeper-1"), "the keeper died")
    assert not ended(house)
    command.send_signal(signal.SIGKILL)
    command.communicate(timeout=10)
    house.start("keeper-1")
    house.until(lambda: ended(house), "the erasure ends", 120)
    assert left_of(house, words) == []
    assert blobs_of(house, tenant) == []


@pytest.mark.slow
def test_a_keeper_that_is_killed_as_it_deletes_blobs_leaves_none(house: House) -> None:
    words = running(house, "blobs")
    house.kill("keeper-1")
    house.start("keeper-1", failpoints="sweep.deleted=kill")
    command = erase(house, "blobs")
    house.until(lambda: not house.lives("keeper-1"), "the keeper died")
    command.kill()
    command.communicate(timeout=10)
    house.start("keeper-1")
    house.until(lambda: ended(house), "the erasure ends", 180)
    assert left_of(house, words) == []
    assert blobs_of(house, "blobs") == []
