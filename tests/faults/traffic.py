"""Traffic: tenants that upload, create, cancel and look while everything around them fails.

What is accepted is known for certain: each upload and create carries an Idempotency-Key, and is sent again until it is
answered, whatever fell in between.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import httpx
from e2e.live import CHAT, EMBEDDINGS, ENDED, chat, embed, jsonl
from faults.accepted import Accepted, Line
from faults.house import MODEL
from faults.panels import Panel

LANES: Final = ("priority", "standard", "standard", "flex")
ABSENT: Final = "absent"
"""A model that is known and that nobody serves: its lines wait until their batch expires."""
_OVERLOADED: Final = (408, 429, 500, 502, 503, 504)


class Broken(Exception):
    """The API answered what it never may."""


@dataclass
class Tenant:
    """One tenant's traffic, drawn from a seed, in a thread of its own."""

    name: str
    url: str
    key: str
    seed: int
    poison: bool
    models: Sequence[str] = (MODEL,)
    """What its batches and jobs ask for, each for one of them."""
    panels: Sequence[Panel] = ()
    """Ensembles that they may ask for instead; a batch may ask for several."""
    most_open_lines: int = 3_000
    accepted: list[Accepted] = field(default_factory=list)
    """In the order of acceptance; read by others once it is there."""
    open: dict[str, Accepted] = field(default_factory=dict)
    repeated: int = 0
    """Requests that had to be sent again."""
    pauses: int = 0
    """Batches and jobs that it paused, and let go on a little later."""
    broken: list[str] = field(default_factory=list)
    """What the API answered and never may."""

    def __post_init__(self) -> None:
        self._chance = random.Random(f"{self.seed} {self.name}")
        self._stop = threading.Event()
        self._giving_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"traffic-{self.name}", daemon=True)
        self._number = 0
        self._paused: list[tuple[float, Accepted]] = []
        self._http = httpx.Client(
            base_url=f"{self.url}/v1", headers={"authorization": f"Bearer {self.key}"}, timeout=20, trust_env=False
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing new; what is being sent is sent until it is answered."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Return once what was begun is answered; after that long it is a breach."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._giving_up.set()
            self.broken.append(f"the API did not answer {self.name} within {seconds:g} s after the last fault")
            self._thread.join(30)
        self._http.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._try(self._act)
            self._stop.wait(self._chance.uniform(0.1, 0.6))
        for _, one in self._paused:
            self._try(partial(self._resume, one))

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Broken as error:
            if not self._giving_up.is_set():
                self.broken.append(str(error))

    def _act(self) -> None:
        now = time.monotonic()
        for item in [item for item in self._paused if item[0] <= now]:
            self._paused.remove(item)
            self._resume(item[1])
        if self.open and self._chance.random() < 0.5:
            self._look(self._chance.choice(list(self.open.values())))
        if self.open and self._chance.random() < 0.05:
            self._pause(self._chance.choice(list(self.open.values())))
        if sum(len(one.lines) for one in self.open.values()) > self.most_open_lines:
            return
        draw = self._chance.random()
        if draw < 0.55:
            self._batch()
        elif draw < 0.90:
            self._job()
        elif self.open:
            self._cancel(self._chance.choice(list(self.open.values())))

    # What a client does.

    def _batch(self) -> None:
        number = self._next()
        count = self._chance.choice((1, 30, 200, 200, 700, 1_500))
        lines = self._lines(f"{self.name} batch {number}", count)
        model = self._model()
        embedded = self._chance.random() < 0.25 and not any(line.panel for line in lines)
        if embedded:
            lines = [replace(line, embedded=True) for line in lines]
        asked = [_asked(line, model) for line in lines]
        hurried = self._chance.random() < 0.08
        if hurried and not any(line.panel for line in lines):
            for one in asked[-2:]:
                one["body"]["model"] = ABSENT
        name = f"{self.name}-{number}"
        file = self._send(
            f"file-{name}", "/files", data={"purpose": "batch"}, files={"file": (f"{name}.jsonl", jsonl(asked))}
        )
        window = "1m" if hurried else "24h"
        url = EMBEDDINGS if embedded else CHAT
        body = {"input_file_id": file["id"], "endpoint": url, "completion_window": window} | self._lane()
        self._accept(self._send(f"batch-{name}", "/batches", json=body), "batch", lines, hurried)

    def _job(self) -> None:
        number = self._next()
        lines = self._lines(f"{self.name} job {number}", self._chance.choice((1, 3, 20, 60)), mixed=False)
        model = lines[0].panel.name if lines[0].panel else self._model()
        requests = [{"custom_id": line.custom_id, "body": _asked(line, model)["body"]} for line in lines]
        body = {"model": model, "endpoint": CHAT, "requests": requests} | self._lane()
        self._accept(self._send(f"job-{self.name}-{number}", "/jobs", json=body), "job", lines, False)

    def _cancel(self, one: Accepted) -> None:
        one.cancelled = True
        self._tell(one, "cancel")

    def _pause(self, one: Accepted) -> None:
        if self._tell(one, "pause"):
            self.pauses += 1
            self._paused.append((time.monotonic() + self._chance.uniform(0.5, 8.0), one))

    def _resume(self, one: Accepted) -> None:
        self._tell(one, "resume")

    def _tell(self, one: Accepted, what: str) -> bool:
        """Whether it was not too late for that, or too early."""
        path = f"{_path(one)}/{what}"
        return self._until_answered(lambda: self._http.post(path), path, (200, 409)).status_code == 200

    def _look(self, one: Accepted) -> None:
        path = _path(one)
        shown = self._until_answered(lambda: self._http.get(path), path, (200,)).json()
        if shown["status"] in ENDED:
            self.open.pop(one.id, None)

    # How it does it.

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _model(self) -> str:
        return self._chance.choice(self.models) if len(self.models) > 1 else self.models[0]

    def _lane(self) -> dict[str, str]:
        return {"lane": self._chance.choice(LANES)}

    def _lines(self, name: str, count: int, *, mixed: bool = True) -> list[Line]:
        asked = self._asks(mixed)
        refused = self._chance.random() < 0.3
        lines = []
        for n in range(count):
            panel = asked[n % len(asked)]
            word = panel.words[n // len(asked) % len(panel.words)] if panel else "please"
            end = "[[status 400]]" if refused and n % 10 == 3 else word
            lines.append(Line(f"{name} {n}", f"{name} line {n} {end}", panel))
        if self.poison and self._chance.random() < 0.06:
            at = self._chance.randrange(count)
            lines[at] = Line(f"{name} {at}", f"{name} line {at} [[die]]", lines[at].panel)
        return lines

    def _asks(self, mixed: bool) -> Sequence[Panel | None]:
        """What lines ask for, in turn; None: a model."""
        if not self.panels:
            return [None]
        draw = self._chance.random()
        if draw < 0.6:
            return [self._chance.choice(self.panels)]
        return [None, *self.panels] if mixed and draw < 0.75 else [None]

    def _accept(self, made: dict[str, Any], kind: str, lines: list[Line], hurried: bool) -> None:
        one = Accepted(self.name, kind, made["id"], lines, hurried=hurried)
        self.accepted.append(one)
        self.open[one.id] = one

    def _send(self, key: str, path: str, **request: Any) -> dict[str, Any]:
        headers = {"idempotency-key": f"{self.seed}-{key}"}
        return self._until_answered(lambda: self._http.post(path, headers=headers, **request), path, (200,)).json()

    def _until_answered(self, send: Callable[[], httpx.Response], what: str, right: tuple[int, ...]) -> httpx.Response:
        while not self._giving_up.is_set():
            try:
                answer = send()
                if answer.status_code in right:
                    return answer
                if answer.status_code == 500 or answer.status_code not in _OVERLOADED:
                    raise Broken(f"{what} was answered with {answer.status_code}: {answer.text[:300]}")
            except (httpx.TransportError, json.JSONDecodeError):
                pass
            self.repeated += 1
            time.sleep(self._chance.uniform(0.05, 0.4))
        raise Broken(f"{what} was never answered")


def _path(one: Accepted) -> str:
    return f"/{'batches' if one.kind == 'batch' else 'jobs'}/{one.id}"


def _asked(line: Line, model: str) -> dict[str, Any]:
    """The request of a line that asks its ensemble, or this model."""
    if line.embedded:
        return embed(line.custom_id, line.text, model)
    more = line.panel.body(line.text) if line.panel else {}
    return chat(line.custom_id, line.text, line.panel.name if line.panel else model, **more)
