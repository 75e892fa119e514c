"""OpenAI's own SDK works against the API, unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from api import live
from api.live import CHAT

from penstock.service.admin import models
from penstock.service.core.transaction import Database


@pytest.fixture
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with live.sdk(url, max_retries=0) as client:
        yield client


def test_a_file_goes_up_and_comes_back(sdk: openai.OpenAI) -> None:
    data = b'{"custom_id": "\xc3\xa9"}\n' * 5_000
    file = sdk.files.create(file=("requests.jsonl", data), purpose="batch")
    assert (file.bytes, file.filename) == (len(data), "requests.jsonl")
    assert sdk.files.retrieve(file.id) == file
    assert sdk.files.content(file.id).content == data
    assert [one.id for one in sdk.files.list(purpose="batch")] == [file.id]
    assert sdk.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.retrieve(file.id)


def test_a_file_may_say_when_it_expires(sdk: openai.OpenAI) -> None:
    wanted = {"anchor": "created_at", "seconds": 7_200}
    file = sdk.files.create(file=b"{}", purpose="batch", expires_after=wanted)  # type: ignore[arg-type]
    assert file.expires_at == file.created_at + 7_200


def test_a_batch_is_created_looked_at_and_cancelled(sdk: openai.OpenAI) -> None:
    file = sdk.files.create(file=b"{}", purpose="batch")
    batch = sdk.batches.create(
        input_file_id=file.id,
        endpoint=CHAT,
        completion_window="24h",
        metadata={"for": "a test"},
        output_expires_after={"anchor": "created_at", "seconds": 3_600},
        extra_body={"lane": "flex"},
    )
    assert batch.status == "validating"
    assert batch.metadata == {"for": "a test"}
    assert sdk.batches.retrieve(batch.id).input_file_id == file.id
    assert sdk.batches.cancel(batch.id).status == "cancelling"
    assert sdk.batches.retrieve(batch.id).status == "cancelled"
    assert sdk.batches.cancel(batch.id).status == "cancelled"


def test_listing_pages_by_itself_over_120_batches(sdk: openai.OpenAI) -> None:
    file = sdk.files.create(file=b"{}", purpose="batch")
    made = [sdk.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id for _ in range(120)]
    listed = [batch.id for batch in sdk.batches.list(limit=50)]
    assert listed == list(reversed(made))
    first = sdk.batches.list()
    assert len(first.data) == 20
    assert first.has_more


def test_files_page_by_themselves_in_both_orders(sdk: openai.OpenAI) -> None:
    made = [sdk.files.create(file=b"{}", purpose="batch").id for _ in range(7)]
    assert [file.id for file in sdk.files.list(limit=3, order="asc")] == made
    assert [file.id for file in sdk.files.list(limit=3)] == list(reversed(made))
    assert list(sdk.files.list(purpose="batch_output")) == []


def test_models_are_listed_even_with_a_slash_in_their_name(sdk: openai.OpenAI, db: Database) -> None:
    db.run(models.add, "org/model")
    assert [model.id for model in sdk.models.list()] == ["org/model"]
    assert sdk.models.retrieve("org/model").owned_by == "penstock"


def test_errors_become_the_sdks_own_exceptions(sdk: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    assert refused.value.param == "input_file_id"
    assert refused.value.request_id.startswith("req_")
    with live.sdk(url, "wrong") as other, pytest.raises(openai.AuthenticationError):
        other.batches.list()
