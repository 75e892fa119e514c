"""Schemathesis's hooks: requests name things that are there, and none takes away what the run stands on.

Loaded by schemathesis, in an environment that has nothing of ours. What was made before the run comes as JSON in
`FUZZ_THINGS`: by the name of a path's parameter, ids; what answers tell of new things is added. How often each
operation was answered with which status goes to the file `FUZZ_ANSWERS` at the end.
"""

from __future__ import annotations

import atexit
import json
import os
import zlib
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import Any, Final

import schemathesis

_GIVEN: Final = json.loads(os.environ["FUZZ_THINGS"])
_KEPT: Final = {(name, id) for name, ids in _GIVEN["kept"].items() for id in ids}
_MOST: Final = 100
"""Ids of each kind, the newest: older ones have mostly been deleted."""
_BY_OBJECT: Final = {
    "batch": "batch_id",
    "job": "job_id",
    "file": "file_id",
    "upload": "upload_id",
    "webhook_endpoint": "endpoint_id",
    "webhook_delivery": "delivery_id",
    "organization.admin_api_key": "key_id",
    "tenant": "tenant_id",
    "tenant.erasure": "erasure_id",
    "upload.part": "part_ids",
}
_IN_BODIES: Final = {"input_file_id": "file_id", "endpoint_id": "endpoint_id", "batch": "batch_id"} | {
    name: name for name in _GIVEN["values"]
}
_UNKNOWN: Final = "x-schemathesis-unknown-property"

_ids: dict[str, deque[Any]] = defaultdict(lambda: deque(maxlen=_MOST))
for _name, _made in (_GIVEN["made"] | _GIVEN["values"]).items():
    _ids[_name].extend(_made)

_answers: dict[str, Counter[int]] = defaultdict(Counter)


@atexit.register
def _tell() -> None:
    Path(os.environ["FUZZ_ANSWERS"]).write_text(json.dumps(_answers))


def _real(name: str, generated: Any) -> Any:
    """In three of four cases the id of something that is there; always the same for the same generated value."""
    drawn = zlib.crc32(repr(generated).encode())
    known = _ids.get(name)
    return known[drawn // 4 % len(known)] if known and drawn % 4 else generated


def _meant_well(case: schemathesis.Case, part: str) -> bool:
    """Whether this part of the request is as the page says: the others are wrong on purpose, and stay so."""
    if case.meta is None:
        return False
    modes = {where.value: one.mode.value for where, one in case.meta.components.items()}
    return modes.get(part, "positive") == "positive"


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Nothing is asked of the tenant and the key that the run itself uses: erased, they would end it.

    Nor is a header or query wrong because it has a field that nobody knows: HTTP lets everybody add some.
    """
    if _UNKNOWN in (case.headers or {}) or _UNKNOWN in (case.query or {}):
        return False
    return not any((name, value) in _KEPT for name, value in (case.path_parameters or {}).items())


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Any, case: schemathesis.Case, response: schemathesis.Response
) -> bool:
    """What is right all the same.

    A form has text only: a wrong type of JSON that is sent as one may be right (an empty file, a number). And one model
    has no worker, on purpose.
    """
    if type(failure).__name__ == "AcceptedNegativeData" and case.media_type == "multipart/form-data":
        return False
    return not (response.status_code == 503 and b'"code":"no_worker"' in response.content)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, **_: Any) -> None:
    """Put ids of real things into the path and the body."""
    if case.path_parameters and _meant_well(case, "path"):
        for name, value in list(case.path_parameters.items()):
            if value not in _ids[name]:
                case.path_parameters[name] = _real(name, value)
    if isinstance(case.body, dict) and _meant_well(case, "body"):
        body = dict(case.body)
        for name, kind in _IN_BODIES.items():
            if name in body:
                body[name] = _real(kind, body[name])
        if isinstance(body.get("part_ids"), list) and _ids["part_ids"]:
            body["part_ids"] = [_real("part_ids", one) for one in body["part_ids"]]
        if zlib.crc32(repr(body).encode()) % 4:
            body |= _GIVEN["asked"].get(case.operation.path, {})
        case.body = body


@schemathesis.hook
def after_call(context: schemathesis.HookContext, case: schemathesis.Case, response: schemathesis.Response) -> None:
    """Count it, and remember what a create made."""
    _answers[case.operation.label][response.status_code] += 1
    if case.method not in ("POST", "DELETE") or response.status_code not in (200, 202):
        return
    try:
        made = response.json()
    except ValueError:
        return
    name = _BY_OBJECT.get(made.get("object", "")) if isinstance(made, dict) else None
    if name and not made.get("deleted") and made["id"] not in _ids[name] and (name, made["id"]) not in _KEPT:
        _ids[name].append(made["id"])
