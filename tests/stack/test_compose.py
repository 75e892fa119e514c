"""The compose file says what `penstock up` does, with every secret from the environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.stack import child_environment

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose" / "docker-compose.yml").read_text()


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load(TEXT)["services"]


def test_it_runs_the_processes_of_the_platform(services: dict[str, Any]) -> None:
    watching = {name for name, service in services.items() if service.get("profiles") == ["monitoring"]}
    assert watching == {"prometheus", "grafana"}
    assert set(services) - watching == {"postgres", "valkey", "migrate", "api", "keeper", "io", "gpu", "flower"}
    up = (ROOT / "platform" / "penstock" / "stack" / "up.py").read_text()
    for name in ("migrate", "api", "keeper"):
        assert services[name]["command"][:2] == ["penstock", name]
        assert f'"penstock.cli.main", "{name}"' in up
    for name in ("io", "gpu"):
        assert services[name]["command"][:4] == ["python", "-m", "penstock_worker", name]
    assert services["flower"]["command"][:3] == ["python", "-m", "penstock_worker.runtime.flower_server"]
    assert '"penstock_worker.runtime.flower_server"' in up


def test_every_image_is_built_from_a_stage_that_exists(services: dict[str, Any]) -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "compose" / "Dockerfile").read_text(), re.MULTILINE)
    built = {service["build"]["target"] for service in services.values() if "build" in service}
    assert built == set(stages)
    for source in re.findall(r"^COPY (.+) \S+$", (ROOT / "compose" / "Dockerfile").read_text(), re.MULTILINE):
        assert (ROOT / source).exists(), source


def test_every_variable_that_it_needs_stands_in_the_example(services: dict[str, Any]) -> None:
    example = (ROOT / "compose" / "penstock.env.example").read_text()
    known = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    passed_on = set(yaml.safe_load(TEXT)["x-object-store"])
    assert set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", TEXT)) | passed_on == known
    assert set(re.findall(r"\$\{([A-Z_]+):\?\}", TEXT)) == set(re.findall(r"^([A-Z_]+)=$", example, re.MULTILINE))


def test_what_watches_reads_its_files_and_the_metrics_token_alone(services: dict[str, Any]) -> None:
    for name in ("prometheus", "grafana"):
        mounted = [one for one in services[name]["volumes"] if one.startswith("./")]
        assert mounted
        for one in mounted:
            source, _, mode = one.split(":")
            assert (ROOT / "compose" / source).is_dir()
            assert mode == "ro"
    token = yaml.safe_load(TEXT)["secrets"]["metrics-token"]
    assert token == {"environment": "PENSTOCK_METRICS_TOKEN"}
    assert {name for name, service in services.items() if "secrets" in service} == {"prometheus"}
    knowing = {name for name, service in services.items() if "PENSTOCK_METRICS_TOKEN" in service.get("environment", {})}
    assert knowing == {"api", "gpu"}


def test_only_what_people_look_at_is_reachable_from_the_host_and_only_on_loopback(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {
        "api": ["${PENSTOCK_BIND:-127.0.0.1:8000}:8000"],
        "flower": ["127.0.0.1:5555:5555"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_the_secret_keys_are_with_who_makes_secrets_signs_and_encrypts_again(services: dict[str, Any]) -> None:
    knowing = {name for name, service in services.items() if "PENSTOCK_SECRET_KEYS" in service.get("environment", {})}
    assert knowing == {"migrate", "api", "io"}


def test_the_first_key_is_with_the_api_and_flower_knows_no_database(services: dict[str, Any]) -> None:
    knowing = {name for name, service in services.items() if "PENSTOCK_BOOTSTRAP_KEY" in service.get("environment", {})}
    assert knowing == {"api"}
    assert set(services["flower"]["environment"]) == {"PENSTOCK_REDIS_URL", "FLOWER_BASIC_AUTH"}


def test_only_the_api_and_the_gpu_worker_know_the_doors_token(services: dict[str, Any]) -> None:
    knowing = {name for name, service in services.items() if "PENSTOCK_INGRESS_TOKEN" in service.get("environment", {})}
    assert knowing == {"api", "gpu"}
    gpu = services["gpu"]["environment"]
    assert (gpu["PENSTOCK_INGRESS_HOST"], gpu["PENSTOCK_INGRESS_PORT"]) == ("0.0.0.0", 8400)
    assert set(services["keeper"]["environment"]) < set(gpu), "what all others are told, these two are told too"


def test_an_object_stores_credentials_are_with_who_reads_and_writes_blobs(services: dict[str, Any]) -> None:
    passed_on = yaml.safe_load(TEXT)["x-object-store"]
    assert {name.partition("_")[0] + "_" for name in passed_on} == set(child_environment._CREDENTIALS)
    assert set(passed_on.values()) == {None}, "what is not set is not there, rather than empty"
    knowing = {name for name, one in services.items() if set(passed_on) <= set(one.get("environment", {}))}
    some = {name for name, one in services.items() if set(passed_on) & set(one.get("environment", {}))}
    assert knowing == some == child_environment._BLOBS - {"pool"}, "a pool's host is no service of the file"
