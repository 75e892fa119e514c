"""`penstock webhooks` over a live API."""

from __future__ import annotations

import httpx
import pytest
from api.live import create, upload
from cli.conftest import Penstock

from penstock.service.core.transaction import Database
from penstock.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Loopback is allowed, and nobody sends."""
    return settings.model_copy(update={"outbound_allow": "127.0.0.0/8"})


def test_an_endpoint_is_made_listed_rotated_disabled_and_deleted(
    penstock: Penstock, client: httpx.Client, db: Database
) -> None:
    done = penstock("webhooks", "create", "http://127.0.0.1:9/hook", "--name", "ours", "--event", "batch.failed")
    id, secret = done.stdout.split()
    assert secret.startswith("whsec_")
    listed = penstock("webhooks", "list").stdout.splitlines()
    assert listed[1].split() == [id, "http://127.0.0.1:9/hook", "failed", "enabled", "ours"]
    rotated = penstock("webhooks", "rotate", id).stdout.strip()
    assert rotated.startswith("whsec_")
    assert rotated != secret
    client.post(f"/v1/webhook_endpoints/{id}", json={"enabled": False})
    assert "disabled (by hand)" in penstock("webhooks", "list").stdout
    assert penstock("webhooks", "enable", id).stdout.strip() == f"{id} enabled"
    assert penstock("webhooks", "delete", id).exit_code == 0
    assert len(penstock("webhooks", "list").stdout.splitlines()) == 1


def test_what_may_not_be_an_endpoint_is_said_in_one_line(penstock: Penstock) -> None:
    done = penstock("webhooks", "create", "http://10.0.0.1/")
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1


def test_deliveries_are_listed_and_replayed(penstock: Penstock, client: httpx.Client, db: Database) -> None:
    made = client.post("/v1/webhook_endpoints", json={"url": "http://127.0.0.1:9/hook"}).json()
    batch = create(client, upload(client)["id"])["id"]
    client.post(f"/v1/batches/{batch}/cancel")
    row = penstock("webhooks", "deliveries", "--batch", batch).stdout.splitlines()[1].split()
    assert row[1:5] == [batch, "cancelled", "pending", "0"]
    assert penstock("webhooks", "replay", row[0]).exit_code == 1, "it is pending"
    client.post(f"/v1/webhook_endpoints/{made['id']}", json={"enabled": False})
    client.post(f"/v1/webhook_endpoints/{made['id']}", json={"enabled": True})
    assert row[0] in penstock("webhooks", "deliveries", "--status", "failed", "--json").stdout
    assert penstock("webhooks", "replay", "--status", "failed", "--since", "2099-01-01").stdout.startswith("0 ")
    assert penstock("webhooks", "replay", "--status", "failed").stdout.strip() == "1 deliveries are sent again"
    assert penstock("webhooks", "replay").exit_code == 1
