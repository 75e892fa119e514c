"""Child environments: secrets of the operator's environment reach only those who need them."""

from __future__ import annotations

import pytest

from penstock.stack import child_environment

GIVEN = {
    "PATH": "/bin",
    "LC_ALL": "C.UTF-8",
    "OF_MINE": "1",
    "PENSTOCK_LOG_LEVEL": "debug",
    "PENSTOCK_DATABASE_URL": "postgresql://penstock:secret@db/penstock",
    "PENSTOCK_BOOTSTRAP_KEY": "secret",
    "PENSTOCK_INGRESS_TOKEN": "secret",
    "PENSTOCK_METRICS_TOKEN": "secret",
    "PENSTOCK_SECRET_KEYS": "secret",
    "PENSTOCK_SECRET_KEYS_FILE": "a file of secrets",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "GOOGLE_SERVICE_ACCOUNT_KEY": "secret",
    "HF_TOKEN": "secret",
}
EVERYBODYS = {"PATH", "LC_ALL", "OF_MINE", "PENSTOCK_LOG_LEVEL"}
SECRET_KEYS = {"PENSTOCK_SECRET_KEYS", "PENSTOCK_SECRET_KEYS_FILE"}
DATABASE, CLOUD = {"PENSTOCK_DATABASE_URL"}, {"AWS_SECRET_ACCESS_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY"}


@pytest.mark.parametrize(
    ("child", "told"),
    [
        ("postgres", {"PATH", "LC_ALL"}),
        ("valkey", {"PATH", "LC_ALL"}),
        ("migrate", EVERYBODYS | DATABASE | SECRET_KEYS),
        ("flower", EVERYBODYS),
        ("keeper", EVERYBODYS | DATABASE | CLOUD),
        ("io", EVERYBODYS | DATABASE | CLOUD | SECRET_KEYS),
        ("gpu", EVERYBODYS | DATABASE | CLOUD | {"PENSTOCK_INGRESS_TOKEN", "PENSTOCK_METRICS_TOKEN", "HF_TOKEN"}),
        (
            "api",
            EVERYBODYS
            | DATABASE
            | CLOUD
            | SECRET_KEYS
            | {"PENSTOCK_BOOTSTRAP_KEY", "PENSTOCK_INGRESS_TOKEN", "PENSTOCK_METRICS_TOKEN"},
        ),
    ],
)
def test_each_child_gets_what_it_needs(child: str, told: set[str]) -> None:
    assert set(child_environment.of(child, GIVEN)) == told
