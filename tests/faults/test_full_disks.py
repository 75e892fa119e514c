"""A disk that is full is said, waited for and got over: nothing half-finished is seen, nothing is counted to death.

The disks are small filesystems in memory, which root may mount; elsewhere a limit on the size of files stands in.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from e2e.live import chat, jsonl, said
from faults.house import House
from faults.servers import PostgresServer

pytestmark = pytest.mark.timeout(240)

# Scratch must have this much to spare (service/core/scratch.py), and some more.
_SCRATCH_BYTES = 100 * 1024 * 1024
_BLOB_BYTES = 6 * 1024 * 1024


@contextmanager
def disk(at: Path, bytes: int) -> Iterator[Path]:
    """A small filesystem; skips where it can't be mounted."""
    at.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={bytes},mode=0777", "penstock-test", str(at)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if done.returncode != 0:
        pytest.skip(f"small filesystems can't be mounted here: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@contextmanager
def full(folder: Path, leave_bytes: int = 0) -> Iterator[None]:
    """Fill its disk but for so many bytes."""
    stuffing = folder / "stuffing"
    with stuffing.open("wb") as file:
        for _ in range(100):  # whoever writes there meanwhile leaves less than was free a moment ago
            held = os.fstat(file.fileno()).st_blocks * 512
            size = held + shutil.disk_usage(folder).free - leave_bytes
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                break
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    try:
        yield
    finally:
        stuffing.unlink()


@pytest.fixture(scope="module")
def house(build: Callable[..., House], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house whose blob store and whose io worker's scratch are small disks."""
    folder = tmp_path_factory.mktemp("disks")
    with disk(folder / "blobs", _BLOB_BYTES) as blobs, disk(folder / "scratch", _SCRATCH_BYTES) as scratch:
        names = ("api-1", "keeper-1", "io-1", "gpu-1")
        own = {name: {"blob_url": f"file://{blobs}"} for name in names}
        own["io-1"]["scratch_dir"] = str(scratch)
        house = build(own=own, hint_again_seconds="1", poll_seconds="1", unfinished_blob_seconds="86400")
        house.blobs, house.scratch = blobs, scratch
        yield house
        for name in house.residents:
            house.kill(name)


def texts(count: int, marker: str = "") -> list[str]:
    return [f"say {n} {marker}" for n in range(count)]


def submitted(house: House, said: list[str]) -> str:
    return house.client.submit([chat(f"line-{n}", text) for n, text in enumerate(said)]).id


def each_line_once(house: House, id: str, asked: list[str]) -> None:
    batch = house.client.ended(id, 60)
    assert batch.status == "completed", batch
    assert [said(line) for line in house.client.file(batch.output_file_id)] == asked
    assert batch.error_file_id is None
    assert house.ask("select sum(crashes) from slices where batch = %s", id) == 0


def blobs_of(house: House) -> set[str]:
    return {str(path) for path in house.blobs.rglob("*") if path.is_file() and path.name != "stuffing"}


def test_an_upload_to_a_full_store_is_a_507_and_leaves_nothing(house: House) -> None:
    http, before = house.client.http, blobs_of(house)
    files = house.ask("select count(*) from files")
    content = jsonl([chat(f"{n}", "x" * 1_000) for n in range(8_000)])  # more than the disk holds
    upload = {"files": {"file": ("in.jsonl", content)}, "data": {"purpose": "batch"}}
    answer = http.post("/files", **upload)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "insufficient_storage")
    assert "full" in answer.json()["error"]["message"]
    assert blobs_of(house) == before
    assert house.ask("select count(*) from files") == files
    assert house.ask("select count(*) from intents where doomed_at is null") == 0
    small = {"files": {"file": ("in.jsonl", jsonl([chat("0", "hello")]))}, "data": {"purpose": "batch"}}
    assert http.post("/files", **small).status_code == 200, "there is room for a smaller one"


def test_answers_wait_for_room_and_are_recorded_once_there_is_some(house: House) -> None:
    asked = texts(300, "[[sleep 1500]]")
    id = submitted(house, asked)
    house.client.watched(id, lambda batch: batch.status == "in_progress", "in progress", 30)
    with full(house.blobs):
        log = house.residents["gpu-1"].log
        seen = log.read_text().count("The blob store is full")
        house.until(lambda: log.read_text().count("The blob store is full") > seen + 2, "the worker waits", 30)
    each_line_once(house, id, asked)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["blobs", "scratch"])
@pytest.mark.parametrize("kind", ["validate", "assemble"])
def test_a_batch_is_put_off_while_a_disk_is_full_and_not_counted_to_death(house: House, place: str, kind: str) -> None:
    asked = texts(200, f"[[sleep {2_500 if kind == 'assemble' else 1_000}]]")
    house.stop("io-1")
    id = submitted(house, asked)
    if kind == "assemble":
        house.cont("io-1")
        house.client.watched(id, lambda batch: batch.status == "in_progress", "in progress", 30)
        house.stop("io-1")
        house.client.watched(id, lambda batch: batch.status == "finalizing", "finalizing", 30)
    with full(getattr(house, place)):
        house.cont("io-1")
        put_off = "select count(*) from leases where batch = %s and kind = %s and closed_as = 'released'"
        # More often than it may die (three attempts).
        house.until(lambda: house.ask(put_off, id, kind) >= 5, "it is put off again and again", 40)
        assert house.ask("select attempts from batches where id = %s", id) <= 1
        before = blobs_of(house)
    each_line_once(house, id, asked)
    assert before <= blobs_of(house)
    assert not list(house.scratch.iterdir())


_LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from penstock.blobs.store import Blobs, away_is_unavailable
from penstock.domain.api_errors import NoSpace
from penstock.service.core import scratch

root = Path(sys.argv[1])
blobs = Blobs(f"file://{root}/blobs")
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

def put():
    blobs.put("a/put", bytes(2_000_000))

def write():
    with blobs.writer("a/write") as file:
        file.write(bytes(9_000_000))

def upload():
    async def go():
        with away_is_unavailable():
            file = blobs.open_upload("a/upload")
            for _ in range(9):
                await file.write(bytes(1_000_000))
            await file.close()
    asyncio.run(go())

def spool():
    with scratch.folder(root, "spool-") as folder:
        (folder / "input").write_bytes(bytes(2_000_000))

for act in (put, write, upload, spool):
    try:
        act()
    except NoSpace as error:
        print(act.__name__, "no space")
blobs.delete("a/upload")  # as whoever gives an upload up does
print(sorted(path.name for path in root.rglob("*") if path.is_file()))
"""


def test_every_way_to_write_says_that_there_is_no_room_and_shows_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LIMITED, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert told == ["put no space", "write no space", "upload no space", "spool no space", "[]"]


def test_a_postgres_whose_disk_is_full_says_503_and_recovers_by_itself(
    short_dir: Path, redis_url: str, tmp_path: Path
) -> None:
    folder = short_dir / "fullpg"
    folder.mkdir()
    with ExitStack() as stack:
        small = stack.enter_context(disk(folder / "disk", 400 * 1024 * 1024))
        server = stack.enter_context(PostgresServer(folder, data=small / "pg"))
        with House(server.url, redis_url, tmp_path) as house:
            body = {"messages": [{"role": "user", "content": "x" * 50_000 + "[[sleep 1000]]"}]}
            http = house.client.http

            def post(number: int) -> httpx.Response:
                asked = {"model": "tiny", "requests": [{"body": body}] * 4, "metadata": {"number": str(number)}}
                return http.post("/jobs", json=asked)

            made = [post(0)]
            with full(small):
                while made[-1].status_code == 200:
                    assert len(made) < 2_000, "the disk is never full"
                    made.append(post(len(made)))
                assert made[-1].status_code == 503, made[-1].text
                assert made[-1].headers["retry-after"]
            print(f"{len(made)} jobs, the last one refused: {made[-1].text}")
            house.until(lambda: post(-1).status_code == 200, "jobs are taken again", 60)
            for one in made[:-1][-5:]:
                done = http.get(f"/jobs/{one.json()['id']}", params={"wait": 60}).json()
                assert done["status"] == "completed"
                assert len(done["results"]) == 4
            doubled = "select slice, line from segments, unnest(lines) as line group by 1, 2 having count(*) > 1"
            assert not house.rows(doubled)
