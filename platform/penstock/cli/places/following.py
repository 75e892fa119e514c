"""Following: a sidecar's batches are made, and their lines brought to OUT.part as they are recorded, to the last end.

Each page is written first, then noted in the sidecar: a command that is killed between the two cuts it off again, so a
line stands in OUT.part once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from penstock.cli.client import ask, read
from penstock.cli.input_file import upload
from penstock.cli.own_files import part_of
from penstock.cli.patient_client import LOOK_AGAIN_SECONDS, PatientClient
from penstock.cli.places.place import OpenPlace
from penstock.cli.places.sidecar import Growing, Part, Sidecar
from penstock.cli.places.together import together
from penstock.cli.results import cursor, pieces
from penstock.cli.watch import ENDED, SeenPace, shown, why
from penstock.stack.problem import Problem


def submit(
    place: OpenPlace, sidecar: Sidecar, part: Part, make_file: Callable[[], Path], terms: dict[str, Any]
) -> None:
    """Upload a part's lines and make its batch, as far as that is not done yet; each step is in the sidecar at once.

    `terms` are fields of the create (`model`, `lane`, `completion_window`, …). Raises Problem.
    """
    number = sidecar.parts.index(part)
    if part.file is None:
        part.file = upload(place.client, make_file())
        sidecar.save()
    if part.batch is None:
        asked = {name: value for name, value in terms.items() if value is not None}
        asked |= {"endpoint": part.endpoint, "input_file_id": part.file}
        key = {"idempotency-key": sidecar.key(f"create-{number}")}
        part.batch = ask(place.client, "POST", "/batches", json=asked, headers=key)["id"]
        sidecar.save()


def cancel_left_behind(place: OpenPlace, sidecar: Sidecar) -> None:
    """Cancel what an earlier call began, and this one does not wait for."""
    for batch in sidecar.left_behind:
        with suppress(Problem):  # it has ended, or is at another place
            ask(place.client, "POST", f"/batches/{batch}/cancel")
    sidecar.left_behind = []
    sidecar.save()


def validated(place: OpenPlace, part: Part) -> dict[str, Any]:
    """A part's batch once it was looked at by the server. Raises Problem."""
    while (state := state_of(place, part))["status"] == "validating":
        place.tend()
        time.sleep(LOOK_AGAIN_SECONDS)
    return dict(state)


def retry_failed(place: OpenPlace, sidecar: Sidecar, part: Part) -> None:
    """Ask a part's failed lines again, as a batch of their own, which becomes the part's. Raises Problem."""
    number = sidecar.parts.index(part)
    key = {"idempotency-key": sidecar.key(f"retry-{number}-{part.retried}")}
    one = ask(place.client, "POST", f"/batches/{part.batch}/retry", json={"lines": {"failed": True}}, headers=key)
    part.batch, part.had, part.retried = one["id"], 0, part.retried + 1
    sidecar.save()


def retry_all_failed(place: OpenPlace, sidecar: Sidecar, states: Sequence[dict[str, Any]]) -> bool:
    """Ask the failed lines of all parts again, unless an earlier call began that; whether there are any.

    Raises Problem if a batch ended before it was planned: it has no lines that could be asked again.
    """
    if sidecar.more.get("retrying"):
        return False
    for one in states:
        if one["status"] != "completed" and not one["error_file_id"]:
            raise Problem(f"{one['id']} was {one['status']} before any of it began: --fresh asks all of it.")
    pairs = zip(sidecar.parts, states, strict=True)
    failed = [part for part, one in pairs if one["merged_error_file_id" if part.retried else "error_file_id"]]
    if failed:
        # A call that goes on from here asks them no third time.
        sidecar.ended, sidecar.more["retrying"] = False, True
        for part in failed:
            retry_failed(place, sidecar, part)
    return bool(failed)


def follow(place: OpenPlace, sidecar: Sidecar, growing: Growing, console: Console) -> list[dict[str, Any]]:
    """Bring the lines of all parts' batches until each has ended, with progress; their last states, in that order.

    Goes on behind what the sidecar says is there. Raises Problem.
    """
    if not growing.cut(sidecar.part_bytes):
        sidecar.part_bytes = 0
        for part in sidecar.parts:
            part.had = 0
    pace = SeenPace()
    open_parts = dict(enumerate(sidecar.parts))
    states: dict[int, dict[str, Any]] = {}
    with shown(console) as show:
        while open_parts:
            before = sidecar.part_bytes
            for number, part in list(open_parts.items()):
                states[number] = state_of(place, part)
                if _bring(place, sidecar, part, growing) and states[number]["status"] in ENDED:
                    del open_parts[number]
            all_ = together([states[number] for number in sorted(states)])
            pace.note(all_, time.monotonic())
            show(all_, why(all_) or pace.words(all_, time.time()))
            place.tend()
            if open_parts and sidecar.part_bytes == before:
                time.sleep(LOOK_AGAIN_SECONDS)
    return [states[number] for number in sorted(states)]


def _bring(place: OpenPlace, sidecar: Sidecar, part: Part, growing: Growing) -> bool:
    """One page of a part's lines; whether all of them are there."""
    answer = _asked(place, f"/batches/{part.batch}/results?after={part.had}", gone_is_fine=True)
    if answer.status_code == 410:  # it ended long ago: its files have them all
        return True
    had, more = cursor(answer)
    if had != part.had:
        sidecar.part_bytes, part.had = growing.add(answer.content), had
        sidecar.save()
    return not more


def _asked(place: OpenPlace, path: str, *, gone_is_fine: bool = False) -> httpx.Response:
    """What the API answers; one that is away, or says to come later, is asked again, and the place looked after."""
    patient = PatientClient(place.client, known=True, meanwhile=place.tend)
    answer = patient.get(path, also=(404, 410) if gone_is_fine else (404,))
    if answer.status_code == 404:
        raise Problem(f"{path.split('/')[2]} is not at {place.words} any more: say --fresh to start over.")
    return answer


def fetch_files(place: OpenPlace, sidecar: Sidecar, number: int, state: dict[str, Any], out: Path) -> tuple[Path, Path]:
    """Download answered and failed lines of the part with this number, both in its input's order, to files beside OUT.

    A retried part has those of all its lines. Raises Problem.
    """
    prefix = "merged_" if sidecar.parts[number].retried else ""
    answers, errors = part_of(out, f"{number}.answers"), part_of(out, f"{number}.errors")
    _fetch(place, state[f"{prefix}output_file_id"], answers)
    _fetch(place, state[f"{prefix}error_file_id"], errors)
    return answers, errors


def _fetch(place: OpenPlace, file: str | None, target: Path) -> None:
    try:
        with target.open("wb") as opened:
            opened.writelines(pieces(place.client, file))
    except OSError as error:
        raise Problem(f"{target} can't be written: {error.strerror}.") from None


def state_of(place: OpenPlace, part: Part) -> dict[str, Any]:
    """A part's batch as it is now; an API that is away is waited for. Raises Problem."""
    state: dict[str, Any] = read(_asked(place, f"/batches/{part.batch}"))
    return state
