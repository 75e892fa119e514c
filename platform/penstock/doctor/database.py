"""The database, and what it knows: its revision and clock, room for connections, live processes, tokens and keys."""

from __future__ import annotations

import ssl
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import httpx

from penstock.doctor.finding import Finding, failed, ok, skipped, warning, words
from penstock.doctor.surroundings import Surroundings
from penstock.domain.api_errors import Unavailable
from penstock.domain.fleet.server_facts import ServerFacts
from penstock.service.admin import diagnosis
from penstock.service.admin.diagnosis import Diagnosis
from penstock.service.core.transaction import Database
from penstock.service.webhooks import secret_keys
from penstock.settings import connections
from penstock.store import revision
from penstock.store.engine import sync_engine

_NEEDING: Final = ("postgres", "clock", "connections", "processes")
_CLOCK_SECONDS: Final = 2.0
"""Off by more, timestamps of logs and webhooks mislead; leases go by the database's clock alone."""
_FULL: Final = 0.8
_MOST_INGRESSES: Final = 5
_INGRESS_SECONDS: Final = 2.0


def look(around: Surroundings) -> list[Finding]:
    """All that needs the database, on one connection."""
    db = Database(sync_engine(around.settings.database_url, connections=1), lambda hints: None)
    found: list[Finding] = []
    try:
        found += _look(around, db)
    except Unavailable as error:
        why = words(getattr(error.__cause__, "orig", None) or error)
        mend = "Look at its log." if around.layout else "Start it, or mend PENSTOCK_DATABASE_URL."
        found.append(failed("postgres", f"can't be reached: {why}", mend))
    finally:
        db.close()
    return found + without_database(around, "the database could not be asked", found)


def without_database(around: Surroundings, why: str, found: Sequence[Finding] = ()) -> list[Finding]:
    """What is left to say where the database can't be asked, or not everything."""
    seen = {finding.name for finding in found}
    rest = [skipped(name, why) for name in _NEEDING if name not in seen]
    unasked = Diagnosis((), (), {})
    by_settings = (_ingress_token(around, unasked), _webhook_keys(around, unasked))
    return rest + [one for one in by_settings if one.name not in seen]


def _look(around: Surroundings, db: Database) -> Iterator[Finding]:
    began = time.time()
    facts: ServerFacts = db.run(diagnosis.facts)
    ended = time.time()
    if why := revision.why_not(db.engine):
        fault, _, mend = why.rpartition(": ")
        yield failed("postgres", fault or why, f"{mend[0].upper()}{mend[1:]}" if fault else "")
    else:
        yield ok("postgres", f"version {facts.version}, at revision {revision.newest()}")
    yield _clock(facts, began, ended)
    if why:
        return
    found: Diagnosis = db.run(diagnosis.diagnose, around.settings)
    yield _connections(around, facts, found)
    yield _processes(found)
    yield _ingress_token(around, found)
    yield _webhook_keys(around, found)


def _clock(facts: ServerFacts, began: float, ended: float) -> Finding:
    """What this machine's clock is off by at least: the answer took a while, and nobody knows when it was made."""
    off = max(began - facts.clock_seconds, facts.clock_seconds - ended, 0.0)
    said = f"this machine and Postgres are {off:.1f} s apart" if off else "this machine and Postgres agree"
    if off > _CLOCK_SECONDS:
        return warning("clock", said, "Keep both machines' clocks with NTP (timedatectl).")
    return ok("clock", said)


def _connections(around: Surroundings, facts: ServerFacts, found: Diagnosis) -> Finding:
    """The most that this configuration's processes open, by the table of docs/operations.md: one of each at least."""
    live = Counter(worker.kind for worker in found.processes)
    parts = [("API", around.apis, around.settings.api_connections)]
    parts += [(kind, max(1, live[kind]), most) for kind, most in connections.OF_KIND.items()]
    parts += [("pool host", hosts, connections.POOL)] if (hosts := live["pool"]) else []
    parts += [("for commands", 1, connections.COMMANDS)]
    needed = sum(count * most for _, count, most in parts)
    sum_up = ", ".join(f"{count} {kind} × {most}" for kind, count, most in parts)
    said = f"{needed} of {facts.connections} at most ({sum_up}); {facts.open_connections} are open"
    mend = "Raise max_connections in Postgres, lower PENSTOCK_API_CONNECTIONS, or put a pooler between."
    if needed > facts.connections:
        return failed("connections", said, mend)
    return warning("connections", said, mend) if needed > _FULL * facts.connections else ok("connections", said)


def _processes(found: Diagnosis) -> Finding:
    """Whether a batch could run: keeper, io worker, and a gpu worker whose engine is ready."""
    name = "processes"
    if not found.processes:
        return skipped(name, "none runs")
    live = Counter(f"{worker.kind} {worker.model or ''}".strip() for worker in found.processes)
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(live.items()))
    kinds = {worker.kind for worker in found.processes}
    if missing := [kind for kind in connections.OF_KIND if kind not in kinds]:
        starts = {"keeper": "`penstock keeper`", "io": "`penstock io`", "gpu": "`penstock worker --model …`"}
        return failed(
            name, f"{said}; no {', no '.join(missing)}", f"Start {', '.join(starts[one] for one in missing)}."
        )
    gpus = [worker for worker in found.processes if worker.kind == "gpu"]
    if troubled := [worker for worker in gpus if worker.engine_trouble]:
        one = troubled[0]
        return failed(name, f"the engine of {one.model} does not start: {one.engine_trouble}", f"Look on {one.host}.")
    if not any(worker.state == "ready" for worker in gpus):
        return warning(name, f"{said}; no engine is ready yet", "Wait, or look at the worker's log.")
    return ok(name, said)


def _ingress_token(around: Surroundings, found: Diagnosis) -> Finding:
    """Whether live workers accept the token that APIs with this configuration show."""
    name, secret = "ingress token", around.settings.ingress_secret
    if not secret:
        return warning(name, "there is none: workers take no waiting calls", "Set PENSTOCK_INGRESS_TOKEN everywhere.")
    if not found.ingresses:
        return ok(name, "is set; no worker takes calls now that could say whether it has the same")
    ca = around.settings.ingress_ca
    headers = {"authorization": f"Bearer {secret.shown}"}
    mend = "Set the same PENSTOCK_INGRESS_TOKEN for all APIs and workers, and let this machine reach the ingresses."
    try:
        verify = ssl.create_default_context(cafile=ca)
    except OSError as error:
        return failed(name, f"PENSTOCK_INGRESS_CA can't be read: {words(error)}", "Mend its path.")
    for ingress in found.ingresses[:_MOST_INGRESSES]:
        try:
            with httpx.Client(verify=verify, timeout=_INGRESS_SECONDS, trust_env=False) as client:
                status = client.get(f"{ingress.url}/metrics", headers=headers).status_code
        except httpx.HTTPError as error:
            return warning(name, f"{ingress.url} of {ingress.model} can't be reached: {words(error)}", mend)
        if status == 401:
            return failed(name, f"the worker of {ingress.model} at {ingress.url} has another", mend)
    return ok(name, f"{min(len(found.ingresses), _MOST_INGRESSES)} workers accept it")


def _webhook_keys(around: Surroundings, found: Diagnosis) -> Finding:
    name = "webhook keys"
    new = "`penstock secrets new-key` makes one, for PENSTOCK_SECRET_KEYS."
    try:
        keys = secret_keys.of(around.settings)
    except SystemExit as error:
        return failed(name, str(error.code).removeprefix("penstock: "), new)
    kept = sum(found.webhooks_by_key.values())
    if missing := [id for id in found.webhooks_by_key if id and id not in keys.ids]:
        lost = sum(found.webhooks_by_key[id] for id in missing)
        said = f"{lost} of {kept} endpoints' secrets are under a key that is not here ({', '.join(missing)})"
        return failed(name, said, "Bring it back into PENSTOCK_SECRET_KEYS: `penstock secrets status`.")
    if keys.first is None:
        return warning(name, "there is none: no webhook can be made", new)
    return ok(name, f"{len(keys.ids)} in force, for {kept} endpoints")
