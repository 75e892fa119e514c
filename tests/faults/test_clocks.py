"""F10: processes whose clocks are an hour apart, and turn by an hour meanwhile: only the database's clock decides.

The wall clock is shifted by a `sitecustomize` that these processes import before anything else: `time.time` and
`datetime.now` are an hour before or behind in them, `time.monotonic` is as it is. PostgreSQL's clock is not shifted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from e2e.live import CHAT, chat, jsonl, said
from faults.cases import further
from faults.house import House

pytestmark = pytest.mark.timeout(180)

_SHIFT = '''
"""The wall clock of this process is shifted by PENSTOCK_SHIFTED_CLOCK_SECONDS."""
import datetime, os, time

_by = float(os.environ["PENSTOCK_SHIFTED_CLOCK_SECONDS"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _by
time.time_ns = lambda: _time_ns() + int(_by * 1e9)
_datetime = datetime.datetime


class _Meta(type):
    def __instancecheck__(cls, one):
        return isinstance(one, _datetime)

    def __subclasscheck__(cls, kind):
        return issubclass(kind, _datetime)


class _Shifted(_datetime, metaclass=_Meta):
    @classmethod
    def now(cls, tz=None):
        return _datetime.now(tz) + datetime.timedelta(seconds=_by)

    @classmethod
    def utcnow(cls):
        return _datetime.utcnow() + datetime.timedelta(seconds=_by)


datetime.datetime = _Shifted
print(f"the clock of this process is shifted by {_by:g} s", flush=True)
'''
_HOUR = 3_600
_LEASE_SECONDS = 5.0
_SHIFTED = {"api-1": -_HOUR, "keeper-1": _HOUR, "keeper-2": -_HOUR, "io-1": -_HOUR, "gpu-1": _HOUR, "gpu-2": -_HOUR}


@pytest.fixture(scope="module")
def house(build: Callable[..., House], tmp_path_factory: pytest.TempPathFactory) -> House:
    """Each process with a clock of its own."""
    folder = tmp_path_factory.mktemp("clocks")
    (folder / "sitecustomize.py").write_text(_SHIFT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        house = build(
            keepers=2,
            gpus=2,
            own={name: {"shifted_clock_seconds": str(seconds)} for name, seconds in _SHIFTED.items()},
            slice_lines="100",  # so that both workers have some of each batch
            lease_seconds=str(_LEASE_SECONDS),
            beat_seconds="1",
            worker_gone_seconds="6",
            sweep_seconds="1",
        )
    for name, seconds in _SHIFTED.items():
        assert f"the clock of this process is shifted by {seconds} s" in house.residents[name].log.read_text()
    return house


def each_line_once(house: House, id: str, asked: list[str]) -> None:
    batch = house.client.ended(id, 90)
    assert batch.status == "completed", batch
    assert [said(line) for line in house.client.file(batch.output_file_id)] == asked
    assert batch.error_file_id is None


@pytest.mark.slow
def test_leases_and_deadlines_of_processes_with_shifted_clocks_last_as_long_as_the_database_says(house: House) -> None:
    asked = [f"say {n} [[sleep {7_000 if n % 100 == 0 else 500}]]" for n in range(1_200)]
    file = house.client.sdk.files.create(
        file=("in.jsonl", jsonl([chat(str(n), t) for n, t in enumerate(asked)])),
        purpose="batch",
        extra_body={"expires_after": {"anchor": "created_at", "seconds": 3_600}},
    )
    id = house.client.sdk.batches.create(
        input_file_id=file.id,
        endpoint=CHAT,
        completion_window="30m",  # type: ignore[arg-type]
    ).id
    each_line_once(house, id, asked)
    # It lasted longer than a lease, half of its processes an hour before their deadline and half behind it.
    assert house.ask("select max(closed_at - opened_at) > interval '5 s' from leases where batch = %s", id)
    assert house.ask("select sum(crashes) from slices where batch = %s", id) == 0
    assert house.ask("select count(*) from leases where batch = %s and closed_as <> 'settled'", id) == 0
    assert house.client.sdk.files.retrieve(file.id).status == "processed", "the keeper an hour ahead did not sweep it"
    batch = house.client.sdk.batches.retrieve(id)
    now = float(house.ask("select extract(epoch from now())"))
    assert now - 120 < batch.created_at <= (batch.completed_at or 0) <= now + 1


@pytest.mark.slow
def test_the_deadline_by_the_databases_clock_is_obeyed_at_once(house: House) -> None:
    id = house.client.submit([chat(f"{n}", "stuck [[hang]]") for n in range(10)]).id
    house.client.watched(id, lambda batch: batch.status == "in_progress", "in progress", 30)
    house.sql("update batches set deadline = now() - interval '1 second' where id = %s", id)
    assert house.client.ended(id, 25).status == "expired"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpu-1", *further("gpu-2")])
def test_the_work_of_a_dead_worker_runs_again_in_time_whatever_the_clocks_say(house: House, name: str) -> None:
    asked = [f"{name} {n} [[sleep 2000]]" for n in range(1_000)]
    id = house.client.submit([chat(f"line-{n}", text) for n, text in enumerate(asked)]).id
    mine = "select count(*) from leases where batch = %s and holder = %s and closed_at is null"
    holder = house.holder(name)
    house.until(lambda: house.ask(mine, id, holder), f"{name} holds some of it", 30)
    house.kill(name)
    began = time.monotonic()
    house.until(lambda: not house.ask(mine, id, holder), "its leases are reaped", 25)
    assert time.monotonic() - began > _LEASE_SECONDS - 1.5, "not before the lease was over by the database's clock"
    house.start(name)
    each_line_once(house, id, asked)
