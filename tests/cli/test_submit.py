"""`penstock batches submit` and `estimate`: files of many kinds on their way to the API."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import httpx
import pytest
from api.live import upload
from cli.conftest import Penstock

from penstock.formats import input as lines
from penstock.service.admin import models
from penstock.service.core.transaction import Database
from penstock.store.batches import batches


def jsonl(folder: Path, endpoint: str = "/v1/completions") -> Path:
    file = folder / "in.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + lines.write("a", endpoint, {"model": "tiny", "prompt": "x"}) + b"\n")
    return file


def test_a_file_is_submitted_with_the_endpoint_of_its_first_line(
    penstock: Penstock, client: httpx.Client, tmp_path: Path
) -> None:
    done = penstock("batches", "submit", jsonl(tmp_path), "--lane", "flex", "--window", "90m")
    assert done.exit_code == 0, done.output
    batch = client.get(f"/v1/batches/{done.stdout.strip()}").json()
    assert (batch["endpoint"], batch["lane"], batch["completion_window"]) == ("/v1/completions", "flex", "90m")
    assert client.get(f"/v1/files/{batch['input_file_id']}/content").content == (tmp_path / "in.jsonl").read_bytes()


def test_a_file_is_submitted_to_go_on_without_its_bad_lines(
    penstock: Penstock, client: httpx.Client, tmp_path: Path
) -> None:
    for more, said in (((), "fail"), (("--on-invalid", "skip"), "skip")):
        done = penstock("batches", "submit", jsonl(tmp_path), *more)
        assert done.exit_code == 0, done.output
        assert client.get(f"/v1/batches/{done.stdout.strip()}").json()["on_invalid"] == said
    assert penstock("batches", "submit", jsonl(tmp_path), "--on-invalid", "ignore").exit_code == 2


def test_a_file_that_goes_on_without_bad_lines_may_begin_with_some(
    penstock: Penstock, client: httpx.Client, tmp_path: Path
) -> None:
    name = jsonl(tmp_path)
    bad = b'{bad first\n["no object"]\n{"url": "/v1/nope"}\n{"no": "url"}\n'
    (tmp_path / name).write_bytes(bad + (tmp_path / name).read_bytes())
    assert penstock("batches", "submit", name).stderr.endswith("is not parseable as JSON.\n")
    done = penstock("batches", "submit", name, "--on-invalid", "skip")
    assert done.exit_code == 0, done.output
    assert client.get(f"/v1/batches/{done.stdout.strip()}").json()["endpoint"] == "/v1/completions"
    (tmp_path / name).write_bytes(bad)
    assert penstock("batches", "submit", name, "--on-invalid", "skip").stderr.endswith("is not parseable as JSON.\n")


def test_a_file_whose_lines_name_no_model_is_submitted_and_estimated_with_one(
    penstock: Penstock, db: Database, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        db.run(models.add, name)
    (tmp_path / "in.jsonl").write_bytes(lines.write("a", "/v1/completions", {"prompt": "x"}))
    done = penstock("batches", "submit", "in.jsonl", "--model", "two")
    found = db.run(lambda tx: batches.find(tx.conn, done.stdout.strip()))
    assert found is not None
    assert found.default_model == "two"
    told = penstock("batches", "estimate", "in.jsonl", "--model", "two", "--json")
    assert [one["model"] for one in json.loads(told.stdout)["models"]] == ["two"]


def test_a_file_that_names_no_endpoint_or_is_not_there_is_said_in_one_line(penstock: Penstock, tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("nonsense\n")
    for arguments, words in (
        (("odd",), "The first line of odd is not parseable as JSON"),
        (("none",), "can't be read: No such file"),
        (("/proc/self/environ", "--endpoint", "/v1/completions"), "has another size than it had"),
        (("odd", "--endpoint", "/v1/odd"), "endpoint must be one of"),
        (("odd", "--endpoint", "/v1/completions", "--window", "soon"), "completion_window must be like"),
    ):
        done = penstock("batches", "submit", *arguments)
        assert done.exit_code == 1
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "before", [b"", b"\xef\xbb\xbf", b"\n \r\n\n", b"\xef\xbb\xbf\r\n"], ids=["plain", "BOM", "blank", "BOM and blank"]
)
@pytest.mark.parametrize("length", [1, 1_100_000])
def test_the_command_takes_every_file_that_the_server_takes(
    penstock: Penstock, client: httpx.Client, tmp_path: Path, before: bytes, length: int
) -> None:
    (tmp_path / "in.jsonl").write_bytes(before + lines.write("a", "/v1/completions", {"prompt": "x" * length}))
    done = penstock("batches", "submit", "in.jsonl")
    assert done.exit_code == 0, done.output
    assert client.get(f"/v1/batches/{done.stdout.strip()}").json()["endpoint"] == "/v1/completions"


def test_the_command_takes_gzip_as_the_server_does(penstock: Penstock, client: httpx.Client, tmp_path: Path) -> None:
    line = lines.write("a", "/v1/completions", {"prompt": "x"})
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(line))
    done = penstock("batches", "submit", "in.jsonl.gz")
    assert done.exit_code == 0, done.output
    batch = client.get(f"/v1/batches/{done.stdout.strip()}").json()
    assert (batch["endpoint"], client.get(f"/v1/files/{batch['input_file_id']}").json()["bytes"]) == (
        "/v1/completions",
        len(line),
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "odd is empty: it holds no requests."),
        (b"\xef\xbb\xbf\n\n", "odd is empty: it holds no requests."),
        (b'[{"url": "/v1/completions"}]', "odd: The file is a JSON array"),
        (b'[\n{"url": "/v1/completions"}\n]', "odd: The file is a JSON array"),
        (b'{\n"url": "/v1/completions"}', "a JSON object over several lines"),
        (gzip.compress(b"{}", mtime=0), "names no url: say --endpoint"),
        (gzip.compress(b"{}", mtime=0)[:-4], "begins as gzip does, but can't be inflated"),
        (b"\x89PNG\r\n\x1a\n", "odd: The file is not UTF-8"),
        ("{}".encode("utf-16"), "odd: The file is UTF-16, not UTF-8"),
        (b"7\n", "is no JSON object"),
        (b'{"body": {}}', "names no url: say --endpoint"),
    ],
)
def test_what_is_no_jsonl_is_called_what_it_is(penstock: Penstock, tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "odd").write_bytes(data)
    for command in ("submit", "estimate"):
        done = penstock("batches", command, "odd")
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
        assert words in done.stderr


def test_an_estimate_is_a_table_and_leaves_no_file(
    penstock: Penstock, client: httpx.Client, db: Database, tmp_path: Path
) -> None:
    db.run(models.add, "tiny")
    done = penstock("batches", "estimate", jsonl(tmp_path))
    assert done.exit_code == 0, done.output
    rows = {row.rsplit(None, 3)[0].strip(): row.split()[-3:] for row in done.stdout.splitlines()[1:4]}
    assert rows["lines"] == ["1", "1", "1"]
    assert "time is not known: no worker" in done.stdout
    assert "input by assumed, output by limits, from 1 lines" in done.stdout
    assert client.get("/v1/files").json()["data"] == []
    file = upload(client, jsonl(tmp_path).read_bytes())["id"]
    shown = penstock("batches", "estimate", file, "--endpoint", "/v1/completions", "--json")
    assert json.loads(shown.stdout)["object"] == "batch.estimate"
    assert "Say --endpoint" in penstock("batches", "estimate", file).stderr
