"""Assets: what is not our own is what npm has; what is our own stays small."""

from __future__ import annotations

import hashlib
import tomllib
from importlib import resources
from pathlib import Path

import httpx
import pytest

from penstock.console import assets

STATIC = Path(str(resources.files("penstock.console") / "static"))
VENDOR = STATIC / "vendor"
MOST_SCRIPT_LINES = 1_000
MOST_BYTES = 150_000


def test_vendored_files_are_those_of_their_packages() -> None:
    packages = tomllib.loads((VENDOR / "vendor.toml").read_text())["package"]
    listed = {file["to"]: file["sha256"] for package in packages for file in package["file"]}
    there = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in VENDOR.iterdir()}
    del there["vendor.toml"]
    assert there == listed
    assert all(package["licence"] and package["integrity"].startswith("sha512-") for package in packages)


def test_our_own_scripts_and_all_assets_stay_small() -> None:
    lines = sum(len(file.read_text().splitlines()) for file in STATIC.glob("*.js"))
    assert 0 < lines <= MOST_SCRIPT_LINES
    assert sum(len(one.packed) for one in assets._all().values()) < MOST_BYTES


@pytest.mark.parametrize("template", sorted((STATIC.parent / "templates").rglob("*.html")), ids=lambda one: one.name)
def test_no_template_holds_a_script_a_style_or_what_htmx_would_run(template: Path) -> None:
    text = template.read_text()
    for evil in (" style=", "<style", " onclick", "hx-on", "js:", "javascript:", "|safe", "hx-vals", "autoescape"):
        assert evil not in text, f"{template.name} holds {evil!r}"
    assert text.count("<script") == text.count('<script src="{{ asset(')


def test_an_asset_is_kept_forever_under_a_name_of_its_own(url: str) -> None:
    path = assets.path_of("console.css")
    answer = httpx.get(url + path)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-encoding"] == "gzip"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert httpx.get(url + path.replace("console.", "console.0")).status_code == 404
