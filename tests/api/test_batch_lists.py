"""Lists of batches: filters, what each of a page waits for, and how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from api.live import KEY, chat, create, error, http, serving, upload
from sqlalchemy import text

from penstock.service.admin import keys, models
from penstock.service.core.transaction import Database, Transaction
from penstock.settings import Settings
from penstock.store.engine import sync_engine


@dataclass(frozen=True)
class Place:
    """A live API, the clients of two tenants, and five batches of the first, the oldest first."""

    client: httpx.Client
    stranger: httpx.Client
    db: Database
    batches: list[str]

    def run(self, statement: str, **values: Any) -> None:
        """A statement by hand; the rules of moves are for those who work on batches."""

        def go(tx: Transaction) -> None:
            tx.conn.execute(text("set local session_replication_role = replica"))
            tx.conn.execute(text(statement), values)

        self.db.run(go)


@pytest.fixture(scope="module")
def place(shared_database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Batches that are completed, paused, failed, and two that wait for validation."""
    blobs = f"file://{tmp_path_factory.mktemp('blobs')}"
    settings = Settings(
        database_url=shared_database_url, redis_url=valkey_url, blob_url=blobs, bootstrap_key=KEY, key_cache_seconds=1.0
    )
    db = Database(sync_engine(shared_database_url, connections=2), lambda hints: None)
    with serving(settings) as url, http(url) as client:
        db.run(models.add, "tiny")
        _, key = db.run(keys.create, "stranger", "test")
        file = upload(client)["id"]
        lanes = ("standard", "flex", "priority", "flex", "standard")
        pairs = ({"team": "a", "of": "x"}, {"team": "b"}, {"team": "a"}, {}, {"team": "a", "of": "y"})
        ids = [create(client, file, lane=lane, metadata=pair)["id"] for lane, pair in zip(lanes, pairs, strict=True)]
        with http(url, key) as stranger:
            place = Place(client, stranger, db, ids)
            place.run("update batches set state = 'completed', finish_as = 'completed' where id = :id", id=ids[0])
            place.run("update batches set state = 'paused' where id = :id", id=ids[1])
            place.run("update batches set state = 'failed', finish_as = 'failed' where id = :id", id=ids[2])
            place.run("update batches set model = 'tiny' where id = any(:ids)", ids=[ids[1], ids[3]])
            for at, id in enumerate(ids):
                place.run(
                    "update batches set created_at = to_timestamp(1000000 + cast(:at as int)) where id = :id",
                    at=at,
                    id=id,
                )
            yield place
    db.close()


FILTERS = [
    ({}, [4, 3, 2, 1, 0]),
    ({"status": "validating"}, [4, 3]),
    ({"status": "in_progress"}, [1]),
    ({"status": "paused"}, [1]),
    ({"status": "completed,failed"}, [2, 0]),
    ({"status": "cancelled"}, []),
    ({"lane": "flex"}, [3, 1]),
    ({"model": "tiny"}, [3, 1]),
    ({"model": "other"}, []),
    ({"metadata[team]": "a"}, [4, 2, 0]),
    ({"metadata[team]": "a", "metadata[of]": "x"}, [0]),
    ({"metadata[team]": "c"}, []),
    ({"created_after": 1_000_003}, [4, 3]),
    ({"created_before": 1_000_001}, [0]),
    ({"status": "validating,failed", "metadata[team]": "a"}, [4, 2]),
    ({"status": "validating", "lane": "flex", "model": "tiny"}, [3]),
]


def test_a_list_holds_what_its_filters_choose_and_nothing_of_others(place: Place, subtests: pytest.Subtests) -> None:
    for asked, wanted in FILTERS:
        with subtests.test(asked=asked):
            page = place.client.get("/v1/batches", params=asked).json()
            assert [one["id"] for one in page["data"]] == [place.batches[index] for index in wanted]
            assert place.stranger.get("/v1/batches", params=asked).json()["data"] == []
            assert place.client.get("/v1/jobs", params=asked).json()["data"] == []


def test_pages_of_a_filter_follow_each_other(place: Place) -> None:
    asked: dict[str, Any] = {"status": "completed,failed,validating", "limit": 2}
    first = place.client.get("/v1/batches", params=asked).json()
    assert (first["has_more"], first["last_id"]) == (True, place.batches[3])
    second = place.client.get("/v1/batches", params=asked | {"after": first["last_id"]}).json()
    assert [one["id"] for one in second["data"]] == [place.batches[2], place.batches[0]]
    assert second["has_more"] is False


WRONG = [
    ({"status": "done"}, "status"),
    ({"status": "completed,"}, "status"),
    ({"lane": "fast"}, "lane"),
    ({"created_after": "-1"}, "created_after"),
    ({"created_before": "yesterday"}, "created_before"),
    ({"metadata": "a"}, "metadata"),
    ({f"metadata[{n}]": "x" for n in range(17)}, "metadata"),
    ({"metadata[" + "k" * 65 + "]": "x"}, "metadata"),
    ([("metadata[k]", "1"), ("metadata[k]", "2")], "metadata"),
]


def test_a_wrong_filter_is_named(place: Place, subtests: pytest.Subtests) -> None:
    for asked, param in WRONG:
        with subtests.test(asked=repr(asked)[:60]):
            assert error(place.client.get("/v1/batches", params=asked), 400)["param"].endswith(param)


def test_each_batch_of_a_page_says_why_it_waits(place: Place) -> None:
    found = {one["id"]: one["waiting"] for one in place.client.get("/v1/batches").json()["data"]}
    assert [found[id] and found[id]["reason"] for id in place.batches] == [
        None,
        "paused",
        None,
        "no_io_worker",
        "no_io_worker",
    ]
    assert found[place.batches[1]]["message"] == "Paused: it goes on when it is resumed"
    place.run("update batches set paused_as = 'budget' where id = :id", id=place.batches[1])
    assert place.client.get(f"/v1/batches/{place.batches[1]}").json()["waiting"]["reason"] == "budget"


def test_a_job_in_a_list_says_what_it_says_alone(place: Place) -> None:
    job = place.client.post("/v1/jobs", json={"model": "tiny", "body": chat()}).json()["id"]
    [listed] = place.client.get("/v1/jobs").json()["data"]
    alone = place.client.get(f"/v1/jobs/{job}").json()
    assert listed["waiting"] == alone["waiting"]
    assert alone["waiting"]["message"] == "No live worker serves tiny"
    assert listed["expected"] == alone["expected"]
    assert alone["expected"]["reason"] == "no_worker"


def test_totals_count_open_ones_all_and_ended_ones_that_are_new_enough(place: Place) -> None:
    def counted() -> dict[tuple[str, str], int]:
        page = place.client.get("/v1/batches/totals").json()
        assert page["object"] == "batch.totals"
        assert not any(one["more"] for one in page["data"])
        return {(one["status"], one["lane"]): one["count"] for one in page["data"]}

    still_open = {("validating", "standard"): 1, ("validating", "flex"): 1, ("paused", "flex"): 1}
    assert counted() == still_open, "the ended ones were created in 1970"
    place.run("update batches set created_at = now()")
    assert counted() == still_open | {("completed", "standard"): 1, ("failed", "priority"): 1}
    assert place.stranger.get("/v1/batches/totals").json()["data"] == []
    assert place.client.get("/v1/jobs/totals").json()["object"] == "job.totals"


def test_many_are_paused_resumed_and_cancelled_each_with_its_outcome(place: Place) -> None:
    """Last here: of five batches two are open to steering, and one of them is paused."""

    def done(act: str, who: httpx.Client = place.client, **asked: Any) -> list[tuple[str, str, str | None]]:
        answer = who.post(f"/v1/batches/{act}", json=asked)
        assert answer.status_code == 200, answer.text
        return [(one["id"], one["outcome"], one["status"]) for one in answer.json()["data"]]

    completed, paused, _, flex, standard = place.batches
    assert done("cancel", place.stranger, ids=[standard]) == [(standard, "failed", None)]
    assert done("cancel", place.stranger, filter={}) == []
    assert done("resume", ids=[paused, completed, paused, "none"]) == [
        (paused, "done", "completed"),  # it has no line
        (completed, "failed", None),
        ("none", "failed", None),
    ]
    assert done("pause", filter={"lane": "flex"}) == [(flex, "failed", None), (paused, "failed", None)]
    [one] = [one for one in place.client.get("/v1/batches").json()["data"] if one["id"] == standard]
    assert one["status"] == "validating"
    for _ in range(2):  # the same answer twice
        [(id, outcome, status)] = done("cancel", ids=[standard])
        assert (id, outcome) == (standard, "done")
        assert status in ("cancelling", "cancelled")
    for wrong in (
        {},
        {"ids": []},
        {"ids": [flex], "filter": {}},
        {"filter": {"status": ["done"]}},
        {"ids": ["x"] * 1001},
    ):
        error(place.client.post("/v1/batches/cancel", json=wrong), 400)
    told = place.client.get(f"/v1/batches/{standard}/timeline").json()["data"]
    assert told[0]["event"] == "state"
    assert told[0]["details"]["to"] == "validating"
    assert "batch.cancelled" in [entry["event"] for entry in told]
    error(place.stranger.get(f"/v1/batches/{standard}/timeline"), 404)
    assert place.client.get(f"/v1/batches/{standard}/members").json() == {"object": "list", "data": []}
    for who, path in ((place.stranger, "batches"), (place.client, "jobs")):
        error(who.get(f"/v1/{path}/{standard}/members"), 404)
