"""What is sent is accepted by Node's `openai` package, and by Node's own crypto where no package can be had."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from unit.test_webhook import SECRETS, due

from penstock.domain.webhook import EVENT_TYPES
from penstock.formats import webhook

NODE, NPM = shutil.which("node"), shutil.which("npm")

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not there")

# As Standard Webhooks describes it, on what Node itself has.
_BY_HAND = """
const crypto = require("node:crypto");
const {body, headers, secret} = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const key = Buffer.from(secret.replace("whsec_", ""), "base64");
const content = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`;
const wanted = crypto.createHmac("sha256", key).update(content).digest();
const given = headers["webhook-signature"].split(" ").map((one) => Buffer.from(one.slice(3), "base64"));
const good = given.some((one) => one.length === wanted.length && crypto.timingSafeEqual(one, wanted));
process.stdout.write(good ? JSON.parse(body).type : "refused");
"""

_BY_THE_SDK = """
const OpenAI = require("openai").default;
const {body, headers, secret} = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const client = new OpenAI({apiKey: "unused", webhookSecret: secret});
client.webhooks.unwrap(body, headers).then(
    (event) => process.stdout.write(event.type),
    (error) => process.stdout.write(error instanceof OpenAI.InvalidWebhookSignatureError ? "refused" : `${error}`));
"""


def said(script: str, folder: Path, body: bytes, headers: dict[str, str], secret: str) -> str:
    asked = json.dumps({"body": body.decode(), "headers": headers, "secret": secret})
    done = subprocess.run(
        [str(NODE), "-e", script], cwd=folder, input=asked, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout or done.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node finds `openai`."""
    if NPM is None:
        pytest.skip("npm is not there")
    folder = tmp_path_factory.mktemp("node")
    command = [NPM, "install", "openai@6", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not get the openai package in time")
    if done.returncode:
        pytest.skip(f"npm could not get the openai package: {done.stderr[-200:]}")
    return folder


@pytest.mark.parametrize("type", EVENT_TYPES)
def test_openais_sdk_for_node_accepts_it_under_either_secret(package: Path, type: str) -> None:
    one = due(type)
    body = webhook.body(one)
    headers = webhook.headers(one, body, SECRETS)
    for secret in SECRETS:
        assert said(_BY_THE_SDK, package, body, headers, secret) == type
    assert said(_BY_THE_SDK, package, body + b" ", headers, SECRETS[0]) == "refused"


def test_nodes_own_crypto_accepts_it_and_refuses_what_was_changed(tmp_path: Path) -> None:
    one = due()
    body = webhook.body(one)
    headers = webhook.headers(one, body, SECRETS)
    for secret in SECRETS:
        assert said(_BY_HAND, tmp_path, body, headers, secret) == "batch.completed"
        assert said(_BY_HAND, tmp_path, body + b" ", headers, secret) == "refused"
