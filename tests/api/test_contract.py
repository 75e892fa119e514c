"""What the API answers is what OpenAI's published schemas say."""

from __future__ import annotations

import httpx
from api import contract
from api.live import create, upload

from penstock.domain.work.batch import BatchEnd, BatchState, LineError
from penstock.service.core.transaction import Database
from penstock.store.batches import batches


def test_a_file_has_every_field_of_the_schema(client: httpx.Client) -> None:
    file = upload(client, b"12345")
    contract.check("OpenAIFile", file)
    assert contract.properties("OpenAIFile") <= set(file)
    assert (file["bytes"], file["filename"], file["purpose"], file["status"]) == (5, "in.jsonl", "batch", "processed")
    contract.check("OpenAIFile", client.get(f"/v1/files/{file['id']}").json())


def test_lists_are_what_the_schemas_say_even_when_they_are_empty(client: httpx.Client) -> None:
    for _ in range(2):
        contract.check("ListFilesResponse", client.get("/v1/files").json())
        contract.check("ListBatchesResponse", client.get("/v1/batches").json())
        create(client, upload(client)["id"])


def test_a_batch_has_every_field_of_the_schema_and_unset_ones_are_null(client: httpx.Client) -> None:
    batch = create(client, upload(client)["id"], metadata={"a": "b"})
    contract.check("Batch", batch)
    assert contract.properties("Batch") <= set(batch)
    assert batch["status"] == "validating"
    assert batch["expires_at"] == batch["created_at"] + 86_400
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    for field in ("errors", "output_file_id", "error_file_id", "in_progress_at", "completed_at", "model"):
        assert batch[field] is None
    contract.check("Batch", client.get(f"/v1/batches/{batch['id']}").json())


def test_a_failed_batch_lists_its_errors(client: httpx.Client, db: Database) -> None:
    batch = create(client, upload(client)["id"])
    errors = [LineError("invalid_json_line", "This line is not parseable as valid JSON.", None, 3)]
    how = BatchEnd(BatchState.FAILED, errors=errors, error_count=7)
    db.run(lambda tx: batches.end(tx.conn, {batch["id"]: "evt_1"}, how))
    failed = client.get(f"/v1/batches/{batch['id']}").json()
    contract.check("Batch", failed)
    assert failed["status"] == "failed"
    assert failed["failed_at"]
    assert failed["errors"]["data"] == [
        {"code": "invalid_json_line", "message": errors[0].message, "param": None, "line": 3}
    ]
    assert failed["errors"]["total"] == 7


def test_cancelling_and_deleting_answer_what_the_schemas_say(client: httpx.Client) -> None:
    file = upload(client)["id"]
    batch = create(client, file)["id"]
    cancelling = client.post(f"/v1/batches/{batch}/cancel").json()
    contract.check("Batch", cancelling)
    assert cancelling["status"] == "cancelling"
    assert cancelling["cancelling_at"]
    deleted = client.delete(f"/v1/files/{file}").json()
    contract.check("DeleteFileResponse", deleted)
    assert deleted == {"id": file, "object": "file", "deleted": True}


def test_models_and_errors_are_what_the_schemas_say(client: httpx.Client, model: str) -> None:
    listed = client.get("/v1/models").json()
    contract.check("ListModelsResponse", listed)
    assert [one["id"] for one in listed["data"]] == [model]
    contract.check("Model", client.get(f"/v1/models/{model}").json())
    contract.check("ErrorResponse", client.get("/v1/models/none").json())
