"""`penstock pools`: made, looked at, steered and removed from a terminal."""

from __future__ import annotations

import json
import uuid

import pytest
from api.live import arrive
from cli.conftest import Penstock

from penstock.domain.models.version import Definition
from penstock.domain.pools.decision import PoolDecision, Unkept, Why
from penstock.domain.work.holder import Holder
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.service.models import versions
from penstock.service.pools import decisions, pools, residents
from penstock.settings import Settings


@pytest.fixture(autouse=True)
def known(db: Database) -> None:
    """Two versions of a name and one of another."""
    for model, source in (("chat", "/one"), ("chat", "/two"), ("sql", "/three")):
        db.run(versions.add, model, Definition(source, "echo"))


def host(db: Database, settings: Settings) -> Holder:
    """A live host of pool a, with one version awake."""
    holder = Holder(uuid.uuid4(), "pool", None, "machine", 1, "a")
    db.run(work.register, holder, "ready", 0)
    member = arrive(db, settings, "gpu", "chat")
    db.run(residents.put, holder.id, "chat", "awake", member.id)
    return holder


def test_a_pool_is_made_steered_and_removed(penstock: Penstock, db: Database, settings: Settings) -> None:
    def does(line: str) -> str:
        done = penstock(*line.split())
        assert done.exit_code == 0, (line, done.output)
        return " ".join(done.stdout.split())

    made = does("pools create a --version chat@v1 --version sql --on-demand sql --device l4 --gpu-second 0.001")
    assert made == "pool a has 2 versions: start hosts with `penstock worker --pool a`"
    assert "no live host" in does("pools show a")
    holder = host(db, settings)
    shown = does("pools show a")
    assert (
        "a: shared, 1 awake at once, device l4, oldest waits at most: priority 10 min 0 s, standard 1 h 0 min" in shown
    )
    assert "chat@v1 awake 0" in shown
    assert "sql@v1 stopped 0 on demand" in shown
    assert "host machine" in shown
    assert does("pools list").endswith("a shared l4 1 chat@v1 2 0")
    assert does("pools wake a sql@v1") == "sql@v1 is next in pool a"
    assert "on demand, to be woken" in does("pools show a")
    assert does("pools pin a sql@v1") == "sql@v1 is pinned in pool a"
    assert does("pools unpin a sql@v1") == "sql@v1 takes turns in pool a"
    db.run(pools.unfit, "a", "sql", "no weights")
    assert "unfit: no weights" in does("pools show a")
    decision = PoolDecision(Why.BOUND, "chat", "sql", {}, 20.0, (Unkept("sql", "standard", 3_600.0, 4_000.0),))
    id = db.run(decisions.begin, "a", holder.id, decision, "restart", settings)
    assert does("pools cancel a") == "chat → sql is cancelled"
    found = does("pools decisions a")
    assert "chat sql bound restart cancelled An operator cancelled it." in found
    assert "sql: standard 3600 s can't be kept, about 4000 s" in found
    told = json.loads(does("pools decisions a --json"))["data"]
    assert [one["id"] for one in told] == [f"switch_{id}"]
    db.run(work.mark, holder, "gone", settings)
    assert does("pools remove a") == "pool a is removed"
    assert json.loads(does("pools list --json"))["data"] == []


REFUSED = [
    ("create a --version chat@v9", 1, "No such version: 'chat@v9'."),
    ("create a --version chat@v1 --on-demand sql", 2, "none of its versions"),
    ("create A! --version chat@v1", 2, "A pool's name has"),
    ("remove ..", 2, "A pool's name has"),
    ("show %2e", 2, "A pool's name has"),
    ("create a --version chat@v1 --gpu-second x", 1, "gpu_second must be an amount"),
    ("show b", 1, "penstock: No such pool: 'b'."),
    ("decisions b", 1, "penstock: No such pool: 'b'."),
    ("cancel b", 1, "penstock: No such pool: 'b'."),
    ("remove b", 1, "penstock: No such pool: 'b'."),
]


def test_what_can_not_be_done_is_one_clear_line(penstock: Penstock, subtests: pytest.Subtests) -> None:
    for line, code, why in REFUSED:
        with subtests.test(line=line):
            done = penstock("pools", *line.split())
            assert (done.exit_code, done.stdout) == (code, "")
            assert why in " ".join(done.stderr.replace("│", " ").split())


def test_each_command_has_a_document(penstock: Penstock, db: Database, settings: Settings) -> None:
    def document(line: str) -> dict[str, object]:
        done = penstock("pools", *line.split(), "--json")
        assert done.exit_code == 0, (line, done.output)
        found: dict[str, object] = json.loads(done.stdout)
        return found

    assert document("create a --version chat@v2 --dedicated")["kind"] == "dedicated"
    for line in ("show a", "wake a chat@v2", "pin a chat@v2", "unpin a chat@v2"):
        assert document(line)["object"] == "pool"
    holder = Holder(uuid.uuid4(), "pool", None, "machine", 1, "a")
    db.run(work.register, holder, "ready", 0)
    db.run(decisions.begin, "a", holder.id, PoolDecision(Why.FREE_PLACE, None, "chat@v2"), "restart", settings)
    assert document("cancel a")["object"] == "pool.decision"
    assert document("decisions a")["object"] == "list"
    db.run(work.mark, holder, "gone", settings)
    assert document("remove a") == {"id": "a", "object": "pool", "deleted": True}
