"""`penstock workers`: the fleet in a terminal."""

from __future__ import annotations

import json

import pytest
from api.live import arrive
from cli.conftest import Penstock

from penstock.domain.engines.profiles import REMOTE
from penstock.service.admin import keys
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings import Settings


def test_workers_are_listed_shown_drained_and_restarted_by_the_beginning_of_an_id(
    penstock: Penstock, db: Database, settings: Settings
) -> None:
    worker = arrive(db, settings, "gpu", "tiny")
    arrive(db, settings, "keeper")
    id = str(worker.id)
    header, gpu, keeper = penstock("workers", "list").stdout.splitlines()
    assert header.split()[:4] == ["id", "kind", "model", "state"]
    assert gpu.split()[:4] == [id[:8], "gpu", "tiny", "ready"]
    assert keeper.split()[1:3] == ["keeper", "ready"]
    told = json.loads(penstock("workers", "list", "--json").stdout)
    assert [one["kind"] for one in told["data"]] == ["gpu", "keeper"]
    assert json.loads(penstock("workers", "show", id, "--json").stdout)["id"] == id
    assert "0 lines of 0 now and 8 at most" in penstock("workers", "show", id[:8]).stdout
    assert penstock("workers", "drain", id[:8].upper()).stdout == f"{id} on test drains\n"
    db.run(work.mark, worker, "drained", settings)
    assert penstock("workers", "drain", id[:8], "--wait").stdout == f"{id} on test is drained\n"
    assert penstock("workers", "undrain", id[:8]).stdout == f"{id} on test takes work\n"
    assert penstock("workers", "restart", id[:8]).stdout == f"{id} on test restarts its engine\n"
    assert json.loads(penstock("workers", "restart", id[:8], "--json").stdout)["orders"] == ["undrain", "restart"]
    assert "drained (undrain, restart)" in penstock("workers", "list").stdout
    db.run(work.mark, worker, "gone", settings)
    assert id[:8] not in penstock("workers", "list").stdout
    assert id[:8] in penstock("workers", "list", "--gone").stdout
    ended = penstock("workers", "restart", id[:8])
    assert (ended.exit_code, ended.stderr) == (1, f"penstock: Worker {id} has ended: it takes no orders.\n")


def test_what_an_engine_lacks_is_told_in_words_of_its_worker_and_of_its_model(
    penstock: Penstock, db: Database, settings: Settings
) -> None:
    worker = arrive(db, settings, "gpu", "org/far", REMOTE)
    for shown in (penstock("workers", "show", str(worker.id)).stdout, penstock("models", "show", "org/far").stdout):
        assert "remote" in shown
        assert {f"no {lack}" for lack in REMOTE.lacks} <= {" ".join(line.split()[:2]) for line in shown.splitlines()}
        assert "estimates go by bytes" in " ".join(shown.split())
    assert json.loads(penstock("models", "show", "org/far", "--json").stdout)["engines"] == ["remote"]
    nobody = penstock("models", "show", "nobody")
    assert (nobody.exit_code, nobody.stderr) == (1, "penstock: No such model: 'nobody'.\n")


def test_an_id_of_nobody_of_several_and_a_key_that_is_no_operators_are_one_line_each(
    penstock: Penstock, db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(17):
        arrive(db, settings, "io")
    none = penstock("workers", "drain", "no-such")
    assert none.stderr == "penstock: No worker's id begins with 'no-such': `penstock workers list` shows them.\n"
    several = penstock("workers", "show", "")
    assert several.stderr.startswith("penstock: 17 workers' ids begin with ''")
    monkeypatch.setenv("PENSTOCK_API_KEY", db.run(keys.create, "acme", "not an operator's")[1])
    refused = penstock("workers", "list")
    assert refused.stderr == "penstock: This is for operators' keys only.\n"
    assert none.exit_code == several.exit_code == refused.exit_code == 1
