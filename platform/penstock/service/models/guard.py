"""The guard at work: the keeper looks at aliases that have one, and takes a share back; it never gives one."""

from __future__ import annotations

from penstock.domain.models.alias import AliasChange, Split
from penstock.domain.models.guard import GuardTerms, Outcomes, fault
from penstock.service.core.transaction import Database, Transaction
from penstock.service.models import aliases as model_aliases
from penstock.store.models import aliases, outcomes, versions


def look_at_all(db: Database) -> int:
    """Look at every alias with a guard that stands for several versions; how many shares were taken back."""
    return sum(db.run(look, one) for one in db.run(_guarded))


def _guarded(tx: Transaction) -> list[AliasChange]:
    return [
        one for one in aliases.latest(tx.conn) if one.guard is not None and one.split and len(one.split.weights) > 1
    ]


def look(tx: Transaction, seen: AliasChange) -> bool:
    """Take the newest version's share back if it does worse than the others; False if not, or the alias has changed."""
    if not versions.lock_name(tx.conn, seen.model):
        return False
    now = model_aliases.find(tx, seen.model, seen.alias)
    terms = GuardTerms.of(seen.guard)
    if now is None or now.id != seen.id or now.split is None or terms is None:
        return False
    meant = [one for one in versions.of_model(tx.conn, seen.model) if one.number in now.split.weights]
    queues = {one.number: one.queue for one in meant}
    newest = max(now.split.weights)
    found = outcomes.since(tx.conn, meant, now.at)
    others = sum((found[queues[number]] for number in now.split.weights if number != newest), Outcomes())
    fell = fault(found[queues[newest]], others, terms)
    if fell is None:
        return False
    left = {number: weight for number, weight in now.split.weights.items() if number != newest}
    split = Split.of(model_aliases.parted(100, left))
    why = f"guard: v{newest} had {fell}"
    model_aliases.write(tx, seen.model, seen.alias, split, terms.as_json(), now.demand, why)
    return True


def forget(tx: Transaction) -> int:
    """Delete counts of calls that no guard looks at any more."""
    return outcomes.forget(tx.conn)
