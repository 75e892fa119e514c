"""`penstock run` with real processes: it is interrupted and killed, and OUT has each line once, in the order of IN."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from e2e.live import PENSTOCK, TLS, Platform, chat, jsonl, said, until

pytestmark = pytest.mark.timeout(900)

SLOTS = 16
LINES = 900
SHORT_LEASES = {"PENSTOCK_LEASE_SECONDS": "4", "PENSTOCK_BEAT_SECONDS": "1", "PENSTOCK_CLOSE_GRACE_SECONDS": "1"}


def environment(**more: str) -> dict[str, str]:
    """Ours, without settings of this session's servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")} | more


def run(folder: Path, *arguments: str, status: int, **variables: str) -> str:
    """One call of the command to its end; what it said."""
    done = subprocess.run(
        [PENSTOCK, "run", "-i", "in.jsonl", "-o", "out.jsonl", *arguments],
        cwd=folder, env=environment(**variables), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def operate(platform: Platform, *arguments: str) -> str:
    """An operator's command on the room's platform; what it said."""
    command = [PENSTOCK, *arguments, "--data", str(platform.data)]
    return subprocess.run(command, env=platform.environment, capture_output=True, text=True, check=True).stdout


def calls_refused(platform: Platform) -> int:
    """How many chat completions the room's platform answered with 429 so far."""
    token = {"authorization": f"Bearer {(platform.data / 'metrics-token').read_text().strip()}"}
    page = httpx.get(f"{platform.url}/metrics", headers=token, timeout=60, trust_env=False, verify=TLS).text
    series = 'penstock_http_request_seconds_count{method="POST",route="/v1/chat/completions",status="429"} '
    return sum(int(float(line.removeprefix(series))) for line in page.splitlines() if line.startswith(series))


def out(folder: Path, name: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_bytes().splitlines()]


def ids(folder: Path, name: str = "out.jsonl") -> list[str]:
    return [line["custom_id"] for line in out(folder, name)]


def write(folder: Path, lines: Sequence[dict[str, Any]]) -> list[str]:
    """IN; its custom_ids."""
    (folder / "in.jsonl").write_bytes(jsonl(lines))
    return [line.get("custom_id", "") for line in lines]


def embedding(custom_id: str) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": {"input": custom_id}}


# Everything on this machine, and its ends.


def kill_the_command(process: subprocess.Popen[bytes], family: Sequence[psutil.Process]) -> None:
    process.kill()


def kill_all_of_it(process: subprocess.Popen[bytes], family: Sequence[psutil.Process]) -> None:
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()


End = Callable[[subprocess.Popen[bytes], Sequence[psutil.Process]], None]


def ended(folder: Path, arguments: Sequence[str], lines: int, end: End) -> int:
    """One call that is killed once OUT.part has so many lines; its status, once nothing of it runs any more."""
    part = folder / "out.jsonl.part"
    with (folder / "said").open("ab") as output:
        process = subprocess.Popen(
            [PENSTOCK, "run", *arguments], cwd=folder, env=environment(**SHORT_LEASES), stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        until(
            lambda: process.poll() is not None or (part.exists() and part.read_bytes().count(b"\n") >= lines),
            lambda: f"{lines} lines: {(folder / 'said').read_text()}",
            300,
        )
        assert process.poll() is None, (folder / "said").read_text()
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        end(process, family)
    finally:
        process.kill()
        status = process.wait(60)
    assert psutil.wait_procs(family, timeout=60)[1] == []
    return status


def journal(folder: Path) -> list[tuple[float, str]]:
    """When the engines were asked, and what."""
    rows = [line.split("\t") for line in (folder / "journal").read_text().splitlines()]
    return [(float(seconds), text) for seconds, _, text in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    "ends",
    [
        [(0.5, kill_all_of_it)],
        pytest.param([(0.4, kill_the_command), (0.7, kill_all_of_it)], marks=pytest.mark.slow),
    ],
    ids=["once", "twice"],
)
def test_it_goes_on_after_it_was_killed_and_asks_what_is_missing(
    short_dir: Path, ends: Sequence[tuple[float, End]]
) -> None:
    folder = short_dir / f"run-{len(ends)}"
    folder.mkdir()
    lines = [chat(f"r-{n}", f"line {n}.", max_tokens=8) for n in range(LINES)]
    # One keeps it from its end, however late it is seen how far it is; it fails once lines have a time.
    lines[7] = chat("r-7", "line 7. [[hang]]")
    asked = write(folder, lines)
    arguments = ["-i", "in.jsonl", "-o", "out.jsonl", "--model", "tiny", "--engine", "echo", "--data", "data"]
    arguments += ["--latency-ms", "60", "--jitter=0.5", f"--max-num-seqs={SLOTS}", "--journal", str(folder / "journal")]
    again = 0
    for share, end in ends:
        assert ended(folder, arguments, round(LINES * share), end) == -signal.SIGKILL
        so_far = journal(folder)
        # In flight: the slots with those for overtakers. Answered but not recorded: a flush, and what it takes.
        again += SLOTS + SLOTS // 2 + sum(seconds > so_far[-1][0] - 1.0 for seconds, _ in so_far)
    assert not (folder / "out.jsonl").exists()
    told = run(folder, *arguments[4:], status=3, PENSTOCK_LINE_TIMEOUT_SECONDS="8", **SHORT_LEASES)

    assert ids(folder) == asked
    failed = [(line["custom_id"], line["error"]["code"]) for line in out(folder) if line["error"]]
    assert failed == [("r-7", "request_timeout")]
    assert all(said(line).startswith(f"line {line['custom_id'][2:]}.") for line in out(folder) if not line["error"])
    times = Counter(text for _, text in journal(folder))
    assert len(times) == LINES
    assert sum(times.values()) - LINES <= again, times.most_common(3)
    assert "out.jsonl is whole: 899 answered, 1 failed" in told
    left = {one.name for one in folder.iterdir()} - {"in.jsonl", "data", "journal", "said"}
    assert left == {"out.jsonl", "out.jsonl.penstock.json"}
    assert "is whole since an earlier call" in run(folder, *arguments[4:], status=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "many"),
    [("calls_at_once=8", 40), ("requests_per_minute=300", 330)],
)
def test_an_engine_that_runs_already_is_asked_through_its_address_and_within_its_limits(
    platform: Platform, short_dir: Path, limit: str, many: int
) -> None:
    folder, tenant = short_dir / f"elsewhere-{many}", f"far-{many}"
    folder.mkdir()
    made = operate(platform, "keys", "create", tenant, "--tenant", tenant)
    operate(platform, "limits", "set", tenant, limit)
    (folder / "key").write_text(made)
    key = {"PENSTOCK_ENGINE_KEY_FILE": str(folder / "key")}
    asked = write(folder, [chat(f"e-{n}", f"line {n}. [[sleep 200]]") for n in range(many)])
    refused = run(folder, "--engine-url", platform.url, "--model", "other", status=1, **key)
    has = ", ".join(one.id for one in platform.sdk.models.list())  # tests before this one made some known
    assert f"The engine at {platform.url} has {has}, not other." in refused
    asks = ("--engine-url", f"{platform.url}/v1", "--model", "tiny", "--dtype", "float32")
    before = calls_refused(platform)
    told = run(folder, *asks, status=0, **key)
    assert calls_refused(platform) > before
    assert ids(folder) == asked
    assert "passed over, without a meaning here: --dtype" in told
    assert [line["error"] for line in out(folder)] == [None] * many, "what is over the limit waits, and comes again"
    logs = "".join(file.read_text(errors="replace") for file in (folder / "data/run/logs").iterdir())
    assert made.strip() not in logs


# At a server that runs.


@pytest.fixture
def server(platform: Platform) -> Mapping[str, str]:
    """How the command finds the room's platform."""
    return {"PENSTOCK_API_KEY": (platform.data / "key").read_text().strip()}


def test_several_urls_in_one_file_are_several_batches_and_one_output(
    platform: Platform, server: Mapping[str, str], tmp_path: Path
) -> None:
    asked = write(tmp_path, [chat(f"s-{n}", f"{n}") if n % 3 else embedding(f"s-{n}") for n in range(200)])
    told = run(tmp_path, "--server", platform.url, "--model", "tiny", "-tp", "2", status=0, **server)
    assert ids(tmp_path) == asked
    assert "2 batches completed · 200 answered · 0 failed" in told
    assert "passed over, without a meaning here: -tp" in told


def test_a_line_that_can_not_be_asked_ends_it_before_any_is_asked_or_counts_as_failed(
    platform: Platform, server: Mapping[str, str], tmp_path: Path
) -> None:
    lines = [embedding("i-0"), chat("i-1", "one"), chat("i-1", "twice"), chat("i-2", "other", model="none"), {"odd": 1}]
    write(tmp_path, lines)
    where = ("--server", platform.url, "--model", "tiny")
    assert "Line 5 of in.jsonl can't be asked" in run(tmp_path, *where, status=1, **server)
    write(tmp_path, lines[:4])
    told = run(tmp_path, *where, status=1, **server)
    assert re.search(r"line 3: .*\(duplicate_custom_id\)", told)
    assert re.search(r"line 4: .*\(model_not_found\)", told)
    assert "in.jsonl was refused, for 2 errors" in told
    assert {one.name for one in tmp_path.iterdir()} == {"in.jsonl"}  # nothing stands in the way of the next call
    write(tmp_path, lines)
    run(tmp_path, *where, "--on-invalid", "skip", status=3, **server)
    assert ids(tmp_path) == ["i-0", "i-1", "i-1", "i-2", None]
    assert [(line["error"] or {}).get("code") for line in out(tmp_path)] == [
        None, None, "duplicate_custom_id", "model_not_found", "missing_required_parameter"
    ]  # fmt: skip


def test_an_output_of_another_input_is_kept_unless_it_is_to_be_replaced(
    platform: Platform, server: Mapping[str, str], tmp_path: Path
) -> None:
    write(tmp_path, [chat("a", "one")])
    run(tmp_path, "--server", platform.url, status=0, **server)
    write(tmp_path, [chat("b", "two")])
    told = run(tmp_path, "--server", platform.url, status=1, **server)
    assert (
        told == "penstock: out.jsonl was begun with another input: go on as it began, or say --fresh to start over.\n"
    )
    assert ids(tmp_path) == ["a"]
    run(tmp_path, "--server", platform.url, "--fresh", status=0, **server)
    assert ids(tmp_path) == ["b"]


def test_a_dry_run_says_what_it_would_take_and_leaves_nothing(
    platform: Platform, server: Mapping[str, str], tmp_path: Path
) -> None:
    write(tmp_path, [chat("d-1", "one", max_tokens=8), embedding("d-2")])
    told = run(tmp_path, "--server", platform.url, "--model", "tiny", "--dry-run", status=0, **server)
    assert len(re.findall(r"(?m)^input tokens +\d", told)) == 2
    assert {one.name for one in tmp_path.iterdir()} == {"in.jsonl"}
    assert platform.ask("select count(*) from files where filename = 'part.jsonl'") == 0


def begun(folder: Path, where: Sequence[str], server: Mapping[str, str]) -> subprocess.Popen[str]:
    """One call that has brought some lines."""
    command, part = [PENSTOCK, "run", "-i", "in.jsonl", "-o", "out.jsonl", *where], folder / "out.jsonl.part"
    process = subprocess.Popen(command, cwd=folder, env=environment(**server), stderr=subprocess.PIPE, text=True)
    until(lambda: part.exists() and part.stat().st_size, "some lines")
    return process


def test_a_batch_goes_on_at_its_server_when_the_command_is_interrupted(
    platform: Platform, server: Mapping[str, str], tmp_path: Path
) -> None:
    asked = write(tmp_path, [chat(f"g-{n}", f"{n} {'[[sleep 4000]]' if n else ''}") for n in range(20)])
    process = begun(tmp_path, ["--server", platform.url], server)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    found = re.findall(r"(batch_\w+) goes on there", told)
    assert (process.returncode, len(found)) == (130, 1), told
    assert platform.http.get(f"/batches/{found[0]}").json()["status"] != "cancelled"
    run(tmp_path, "--server", platform.url, status=0, **server)
    assert ids(tmp_path) == asked


def test_what_failed_goes_to_a_file_of_its_own_and_is_asked_again_when_that_is_said(
    platform: Platform, server: Mapping[str, str], tmp_path: Path
) -> None:
    # So many that some wait for a slot for seconds: on a busy machine the first answer is seen late.
    asked = write(tmp_path, [chat(f"f-{n}", f"{n} [[sleep {1500 if n else 0}]]") for n in range(1_000)])
    where = ("--server", platform.url, "--errors", "bad.jsonl")
    process = begun(tmp_path, where, server)
    batch = json.loads((tmp_path / "out.jsonl.penstock.json").read_text())["parts"][0]["batch"]
    platform.http.post(f"/batches/{batch}/cancel").raise_for_status()
    process.communicate(timeout=60)
    failed = ids(tmp_path, "bad.jsonl")
    assert process.returncode == 3
    assert [id for id in asked if id not in set(failed)] == ids(tmp_path)
    assert {line["error"]["code"] for line in out(tmp_path, "bad.jsonl")} == {"batch_cancelled"}
    run(tmp_path, *where, "--retry-failed", status=0, **server)
    assert (ids(tmp_path), ids(tmp_path, "bad.jsonl")) == (asked, [])
