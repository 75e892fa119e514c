"""Resumable uploads: large ones in flat memory, and an API that is killed in the middle loses no part."""

from __future__ import annotations

import hashlib
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from faults.house import KEY, House

pytestmark = pytest.mark.timeout(300)

MIB = 1024 * 1024
WHOLE = 300 * MIB


@pytest.fixture(scope="module")
def house(build: Callable[..., House]) -> House:
    """One API, and nobody else."""
    house = build(keepers=0, ios=0, gpus=0, wait=False)
    house.until(lambda: lives(house), "the API answers", 150)
    return house


@pytest.fixture
def sdk(house: House) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK, which tries nothing again by itself."""
    with openai.OpenAI(base_url=f"{url(house)}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def url(house: House) -> str:
    return f"http://127.0.0.1:{house.residents['api-1'].arguments[-1]}"


def lives(house: House) -> bool:
    try:
        return httpx.get(f"{url(house)}/health/ready", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def again(house: House, **own: str) -> None:
    """The API dies, unless it is dead, and is started anew."""
    if house.lives("api-1"):
        house.kill("api-1")
    house.start("api-1", **own)
    house.until(lambda: lives(house), "the API answers", 60)


def peak_mib(house: House) -> float:
    """The most memory that the process ever had."""
    status = Path(f"/proc/{house.pid('api-1')}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


@pytest.mark.slow
def test_the_sdk_uploads_300_mib_in_chunks_and_the_api_holds_none_of_it(
    house: House, sdk: openai.OpenAI, tmp_path: Path
) -> None:
    large, md5 = tmp_path / "large.jsonl", hashlib.md5()
    line = random.Random(1).randbytes(MIB - 1).replace(b"\n", b" ") + b"\n"
    with large.open("wb") as file:
        for _ in range(WHOLE // MIB):
            file.write(line)
            md5.update(line)
    sdk.uploads.upload_file_chunked(
        file=b"{}", filename="a", bytes=2, mime_type="application/jsonl", purpose="batch"
    )  # whatever is loaded at the first one
    before = peak_mib(house)
    done = sdk.uploads.upload_file_chunked(
        file=large, mime_type="application/jsonl", purpose="batch", md5=md5.hexdigest()
    )
    grown = peak_mib(house) - before
    print(f"peak of the API {peak_mib(house):.0f} MiB, {grown:.0f} MiB of it for the upload")
    assert done.status == "completed"
    assert done.file is not None
    assert done.file.bytes == WHOLE
    assert grown < 32, "less than a part"
    came = hashlib.md5()
    with sdk.files.with_streaming_response.content(done.file.id) as content:
        for piece in content.iter_bytes():
            came.update(piece)
    assert came.digest() == md5.digest()
    sdk.files.delete(done.file.id)


def test_an_api_that_is_killed_between_parts_within_one_and_in_the_complete_loses_nothing(
    house: House, sdk: openai.OpenAI
) -> None:
    data = random.Random(2).randbytes(3 * MIB)
    upload = sdk.uploads.create(bytes=len(data), filename="in.jsonl", mime_type="application/jsonl", purpose="batch").id
    parts = [sdk.uploads.parts.create(upload, data=data[:MIB]).id]
    again(house, failpoints="upload.writing=kill@3")
    with pytest.raises(openai.APIConnectionError):
        sdk.uploads.parts.create(upload, data=data[MIB : 2 * MIB])
    assert house.wait("api-1", 60) == -signal.SIGKILL
    again(house, failpoints="upload.joined=kill")
    parts += [sdk.uploads.parts.create(upload, data=data[at : at + MIB]).id for at in (MIB, 2 * MIB)]
    with pytest.raises(openai.APIConnectionError):
        sdk.uploads.complete(upload, part_ids=parts)
    assert house.wait("api-1", 60) == -signal.SIGKILL
    again(house)
    md5 = hashlib.md5(data).hexdigest()
    done = sdk.uploads.complete(upload, part_ids=parts, md5=md5)
    assert done.file is not None
    assert sdk.files.content(done.file.id).content == data
    assert sdk.uploads.complete(upload, part_ids=parts, md5=md5) == done
    kept = house.ask("select count(*) from files where bytes = %s", len(data))
    assert kept == 1
    assert house.ask("select count(*) from intents where doomed_at is null") == 2, "what died is left to the sweep"
