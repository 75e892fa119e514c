"""Failpoints: named places where a test makes a process die, stop or wait. Without PENSTOCK_FAILPOINTS they do nothing.

    PENSTOCK_FAILPOINTS="segment.written=kill"          the first pass ends the process with SIGKILL
    PENSTOCK_FAILPOINTS="segment.written=kill@3"        the third pass does
    PENSTOCK_FAILPOINTS="slice.flushing=stop@2"         the second pass stops it (SIGSTOP) until SIGCONT
    PENSTOCK_FAILPOINTS="api.committed=sleep:1.5@1,…"   the first pass waits so many seconds; several, by commas

The idea is FreeBSD's fail(9). A name in NAMES is a promise to the tests that the code passes there.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

NAMES: Final = {
    "upload.writing": "some of an upload is in the blob store, its row is not written",
    "upload.joined": "the parts of an upload are in one blob, its row is not written",
    "hint.committed": "a transaction has committed, its hints are not said",
    "slice.claimed": "a slice is claimed, nothing of it is read",
    "slice.asking": "lines of a slice are in flight, none of their answers is recorded",
    "slice.flushing": "answers are in hand, their blob is not written",
    "segment.written": "a segment's blob is written, its row is not",
    "segment.recorded": "a segment's row is committed",
    "slice.settling": "everything is recorded, the slice is not settled",
    "slice.settled": "the slice is settled",
    "trial.noted": "suspects are noted as being asked, and not asked yet",
    "validate.planned": "the plan copy is written, the slices are not",
    "retry.derived": "the input of a retry is written, it is not the retry's own",
    "fold.folded": "what members said of a fold's lines is read and judged, the last of it is not recorded",
    "fold.recording": "a fold's segment is in its blob, its row is not written",
    "fold.recorded": "what is decided of a fold is recorded",
    "fold.asking": "later members are asked for some lines, in a transaction that is not committed",
    "fold.asked": "that is committed",
    "index.writing": "an output file is written, its index is not",
    "assemble.written": "the output files are written, the batch has not ended",
    "delivery.claimed": "deliveries are claimed, none of them is sent",
    "delivery.answered": "a receiver has answered, nothing of that is recorded",
    "delivery.recorded": "what came of some attempts is committed",
    "eval.scored": "every line of a run is scored and its results are written, the run has not ended",
    "sweep.taken": "the sweep knows which blobs are doomed, and has deleted none",
    "sweep.deleted": "some doomed blobs are deleted, their intents are not",
    "erasure.stepped": "a step of an erasure is committed, the next has not begun",
    "pool.decided": "a switch is decided, nothing has begun",
    "pool.leaving": "whoever leaves is said to leave, its member was not told to end",
    "pool.stopping": "its member was told to end, or is about to be put to sleep",
    "pool.stopped": "its member is gone, or sleeps",
    "pool.waking": "whoever comes is starting, or is about to be woken",
    "pool.probing": "it is ready, and was not asked for a token yet",
    "pool.awake": "it is said to be awake, its switch has not ended",
    "keeper.reaping": "the keeper knows who is silent, and has freed nothing yet",
}


_SPEC: Final = re.compile(
    r"(?P<name>[a-z.]+)=(?P<action>kill|stop|sleep:(?P<seconds>\d+(?:\.\d+)?))(?:@(?P<at>[1-9]\d*))?"
)


@dataclass
class _Armed:
    action: str
    seconds: float
    at: int


_armed: dict[str, _Armed] = {}
_passed: Counter[str] = Counter()
_lock = threading.Lock()


def arm(spec: str) -> None:
    """Arm failpoints from PENSTOCK_FAILPOINTS, as an entry point does at its start; raise ValueError if it is odd."""
    for part in filter(None, spec.split(",")):
        found = _SPEC.fullmatch(part)
        if found is None or found["name"] not in NAMES or found["name"] in _armed:
            raise ValueError(f"PENSTOCK_FAILPOINTS: {part!r} is no failpoint.")
        action = found["action"].partition(":")[0]
        _armed[found["name"]] = _Armed(action, float(found["seconds"] or 0), int(found["at"] or 1))


def failpoint(name: str) -> None:
    """Pass a named place; something happens only where it is armed."""
    if not _armed:
        return
    assert name in NAMES, name
    with _lock:
        _passed[name] += 1
        armed = _armed.get(name)
        due = armed is not None and _passed[name] == armed.at
    if armed is None or not due:
        return
    os.write(2, f'{{"event": "failpoint", "name": "{name}", "action": "{armed.action}"}}\n'.encode())
    if armed.action == "sleep":
        time.sleep(armed.seconds)
    else:
        # To this very thread: one that is sent to the process is taken by its first thread, and until that has a core
        # this one goes on. What it means is for the whole process all the same.
        signal.pthread_kill(threading.get_ident(), signal.SIGKILL if armed.action == "kill" else signal.SIGSTOP)
