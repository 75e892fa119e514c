"""F5: API, io worker or keeper that is killed anywhere leaves nothing half visible; what was committed runs anyway."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from e2e.live import CHAT, chat, jsonl
from faults.house import House
from faults.load import Load, check, requests
from faults.one_of_each import arm, revive
from faults.panel_load import PanelLoad

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def house(build: Callable[..., House], journal: Path) -> House:
    """One process of each kind; leases are short, and what is not taken is soon hinted again."""
    return build(
        engine_arguments=[f"--journal={journal}", "--latency-ms=50"],
        lease_seconds="3",
        beat_seconds="1",
        worker_gone_seconds="4",
        hint_again_seconds="1",
        slice_lines="30",
    )


@pytest.fixture(autouse=True)
def unbroken(house: House) -> Iterator[None]:
    """Everybody lives before a test; after it the database and the blobs are as they must be."""
    revive(house)
    yield
    check(house)


def dies(house: House, name: str) -> None:
    """Wait until a process dies at its failpoint."""
    assert house.wait(name, 60) == -signal.SIGKILL


def waiting(house: House, load: Load, states: str) -> None:
    """Wait until a batch is in one of these states, by its row: there may be no API to ask."""
    query = "select state from batches where id = %s"
    house.until(lambda: house.ask(query, load.id) in states.split(), f"{load.name} is {states}")


def test_an_upload_that_kills_its_api_midway_is_nowhere_to_be_seen_and_may_be_sent_again(house: House) -> None:
    arm(house, "api-1", "upload.writing=kill@2")
    before, intents = house.client.http.get("/files").json(), house.rows("select blob_key from intents")
    data = jsonl([chat(f"large-{n}", "x" * 100_000) for n in range(40)])
    once = {"idempotency-key": "the large one"}

    def send() -> httpx.Response:
        form = {"files": {"file": ("large.jsonl", data)}, "data": {"purpose": "batch"}}
        return house.client.http.post("/files", **form, headers=once)

    with pytest.raises(httpx.TransportError):
        pytest.fail(send().text)
    dies(house, "api-1")
    revive(house)
    assert house.client.http.get("/files").json() == before
    assert len(house.rows("select blob_key from intents")) == len(intents) + 1
    sent = send().raise_for_status().json()
    assert send().raise_for_status().json() == sent
    assert house.client.http.get(f"/files/{sent['id']}/content").content == data


@pytest.mark.slow
def test_a_batch_whose_api_dies_before_it_says_the_hint_runs_anyway_and_a_repeated_create_finds_it(
    house: House, journal: Path
) -> None:
    arm(house, "api-1", "hint.committed=kill")
    file = house.client.sdk.files.create(file=("in.jsonl", jsonl(requests("unheard", 90))), purpose="batch")
    before = house.ask("select count(*) from batches")

    def create() -> httpx.Response:
        body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
        return house.client.http.post("/batches", json=body, headers={"idempotency-key": "the unheard one"})

    with pytest.raises(httpx.TransportError):
        create()
    dies(house, "api-1")
    load = Load("unheard", 90, house.ask("select id from batches order by created_at desc limit 1"))
    waiting(house, load, "completed")  # with no API at all
    revive(house)
    assert create().raise_for_status().json()["id"] == load.id
    assert house.ask("select count(*) from batches") == before + 1
    load.has_each_answer_once(house)
    assert not load.asked_again(journal)


@pytest.mark.slow
def test_an_sdk_whose_create_kills_its_api_repeats_it_by_itself_and_gets_that_batch(house: House) -> None:
    arm(house, "api-1", "hint.committed=kill")
    file = house.client.sdk.files.create(file=("in.jsonl", jsonl(requests("unheard by an sdk", 10))), purpose="batch")
    before = house.ask("select count(*) from batches")
    sdk = house.client.sdk.with_options(max_retries=12)
    with ThreadPoolExecutor(1) as pool:
        creating = pool.submit(sdk.batches.create, input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        dies(house, "api-1")
        revive(house)
        made = creating.result(120)
    assert house.ask("select count(*) from batches") == before + 1
    Load("unheard by an sdk", 10, made.id).has_each_answer_once(house)


@pytest.mark.slow
def test_a_job_whose_api_dies_before_it_says_the_hint_runs_anyway_and_a_repeated_create_brings_its_answer(
    house: House,
) -> None:
    arm(house, "api-1", "hint.committed=kill")

    def create() -> httpx.Response:
        body = {"model": house.model, "body": chat("", "a job that nobody heard of")["body"]}
        return house.client.http.post("/jobs", json=body, headers={"idempotency-key": "the unheard job"})

    heard = None
    with contextlib.suppress(httpx.TransportError):  # the hint is said beside the answer, which may be out by then
        heard = create().raise_for_status().json()["id"]
    dies(house, "api-1")
    revive(house)
    made = create().raise_for_status().json()
    assert heard in (None, made["id"])
    found = house.client.http.get(f"/jobs/{made['id']}", params={"wait": 30}).raise_for_status().json()
    assert found["status"] == "completed"
    assert "a job that nobody heard of" in str(found["results"])
    assert house.ask("select count(*) from batches where kind = 'job'") == 1


@pytest.mark.slow
def test_slices_are_run_though_the_io_worker_died_before_it_said_their_hints(house: House, journal: Path) -> None:
    arm(house, "io-1", "hint.committed=kill")
    load = Load.submit(house, "planned", 90)
    dies(house, "io-1")
    waiting(house, load, "finalizing")  # every slice has run; nobody is there who assembles
    revive(house)
    load.has_each_answer_once(house)
    assert not load.asked_again(journal)


def test_a_batch_is_assembled_though_the_gpu_worker_died_before_it_said_so(house: House, journal: Path) -> None:
    arm(house, "gpu-1", "hint.committed=kill")
    load = Load.submit(house, "settled", 20)  # one slice: the first hints after the commit are the assembly's
    dies(house, "gpu-1")
    load.has_each_answer_once(house)  # with no gpu worker at all
    assert not load.asked_again(journal)


@pytest.mark.slow
def test_an_io_worker_that_dies_with_a_plan_written_leaves_it_to_the_sweep_and_one_plan_counts(
    house: House, journal: Path
) -> None:
    arm(house, "io-1", "validate.planned=kill")
    before = plans(house)
    load = Load.submit(house, "replanned", 90)
    dies(house, "io-1")
    abandoned = plans(house) - before
    assert len(abandoned) == 1
    revive(house)
    load.has_each_answer_once(house)
    assert not load.asked_again(journal)
    assert len(plans(house) - before) == 2
    assert house.ask("select blob_key from intents where blob_key = any(%s)", list(abandoned)) in abandoned
    assert house.ask("select count(*) from slices where batch = %s", load.id) == 3
    assert leases(house, load, "validate") == ["reaped", "settled"]
    house.until(lambda: not list((house.scratch / "io-1").iterdir()), "the scratch of the dead one is gone too")


def plans(house: House) -> set[str]:
    """The keys of all plans in the blob store."""
    return {str(path.relative_to(house.blobs)) for path in house.blobs.glob("*/plans/*")}


def leases(house: House, load: Load, kind: str) -> list[str]:
    """How the leases on a batch's validation or assembly ended, in order."""
    query = "select closed_as from leases where batch = %s and kind = %s order by id"
    return [how for (how,) in house.rows(query, load.id, kind)]


@pytest.mark.slow
def test_an_io_worker_that_dies_with_the_files_written_costs_nothing_and_the_next_writes_the_same_bytes(
    house: House,
) -> None:
    arm(house, "io-1", "assemble.written=kill")
    lines = requests("assembled", 90)
    for line in lines[::3]:
        line["body"]["messages"][0]["content"] += " [[status 400]]"
    load = Load("assembled", 90, house.client.submit(lines).id)
    dies(house, "io-1")
    abandoned = house.rows("select blob_key from intents where blob_key like '%%/files/%%'")
    revive(house)
    batch = house.client.ended(load.id)
    assert batch.status == "completed"
    assert [line["custom_id"] for line in house.client.file(batch.error_file_id)] == [
        f"assembled-{n}" for n in range(1, 91, 3)
    ]
    assert [line["custom_id"] for line in house.client.file(batch.output_file_id)] == [
        f"assembled-{n}" for n in range(1, 91) if n % 3 != 1
    ]
    published = {
        digest(house.client.sdk.files.content(str(id)).content) for id in (batch.output_file_id, batch.error_file_id)
    }
    left = {digest((house.blobs / key).read_bytes()) for (key,) in abandoned if (house.blobs / key).exists()}
    assert published <= left
    assert leases(house, load, "assemble") == ["reaped", "settled"]
    assert house.ask("select count(*) from files where filename like %s", f"{load.id}%") == 2


@pytest.mark.slow
def test_an_io_worker_that_dies_between_a_file_and_its_index_leaves_no_index_that_is_wrong(house: House) -> None:
    arm(house, "io-1", "index.writing=kill@2")
    lines = requests("indexed", 30)
    for line in lines[::10]:
        line["body"]["messages"][0]["content"] += " [[status 400]]"
    load = Load("indexed", 30, house.client.submit(lines).id)
    dies(house, "io-1")
    assert (
        house.ask("select count(*) from files where purpose = 'batch_output' and filename like %s", f"{load.id}%") == 0
    )
    revive(house)
    house.client.ended(load.id)
    page = house.client.http.get(f"/batches/{load.id}/lines", params={"state": "failed"}).raise_for_status().json()
    assert [one["line"] for one in page["data"]] == [1, 11, 21]
    groups = house.client.http.get(f"/batches/{load.id}/errors").raise_for_status().json()
    assert [(one["status_code"], one["count"], one["first_line"]) for one in groups["data"]] == [(400, 3, 1)]


@pytest.mark.slow
def test_io_workers_that_die_while_a_retry_is_derived_and_while_it_is_merged_leave_one_whole_result(
    house: House,
) -> None:
    lines = requests("repaired", 60)
    for line in lines[::4]:
        line["body"]["messages"][0]["content"] += " [[needs 100]]"
    parent = house.client.ended(house.client.submit(lines).id)
    arm(house, "io-1", "retry.derived=kill")
    asked = {"set": {"max_tokens": 200}}
    made = house.client.http.post(f"/batches/{parent.id}/retry", json=asked).raise_for_status().json()["id"]
    dies(house, "io-1")
    arm(house, "io-1", "assemble.written=kill")
    dies(house, "io-1")
    revive(house)
    child = house.client.ended(made).model_dump()
    assert (child["status"], child["request_counts"]["completed"]) == ("completed", 15)
    merged = house.client.file(child["merged_output_file_id"])
    assert [line["custom_id"] for line in merged] == [line["custom_id"] for line in lines]
    assert child["merged_error_file_id"] is None


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_keeper_that_dies_while_it_reaps_has_freed_nothing_and_the_next_one_frees_it(
    house: House, journal: Path
) -> None:
    arm(house, "keeper-1", "keeper.reaping=kill")
    arm(house, "gpu-1", "slice.asking=kill")
    load = Load.submit(house, "unreaped", 90)
    dies(house, "gpu-1")
    dies(house, "keeper-1")
    held = house.ask("select count(*) from slices where batch = %s and state = 'running'", load.id)
    assert held
    revive(house)
    load.has_each_answer_once(house)
    reaped = house.rows("select crashes from slices where batch = %s and crashes > 0", load.id)
    assert reaped == [(1,)] * held


@pytest.mark.slow
def test_io_workers_that_die_while_a_fold_is_recorded_and_while_it_asks_further_cost_no_question(
    house: House, journal: Path
) -> None:
    arm(house, "io-1", "fold.recorded=kill")
    load = PanelLoad.submit(house, "gathered", 30)
    dies(house, "io-1")
    arm(house, "io-1", "fold.asking=kill")
    dies(house, "io-1")
    revive(house)
    load.is_as_its_rules_say(house)
    load.asked_once(journal)
    assert load.folds(house).count("reaped") >= 2
