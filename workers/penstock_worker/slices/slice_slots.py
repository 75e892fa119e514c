"""Slice slots: a worker's places for slices in work. Not Celery's threads: an urgent slice always finds one free.

And so does another tenant's: one tenant's slices may hold all but one of the slots that a lane may, and either of its
accounts (domain/accounts/account.py) all but two. A slot is what
feeds a slice's lines to the engine: once all are there, the slice rests until its last answers, and the slot is free.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from penstock.domain.accounts.account import accounts, tenant_of
from penstock.domain.work.lane import LANES, MOST_RESTING, MOST_SLICE_SLOTS, Lane


class SliceSlots:
    """Counts slots by lane and account. The limits nest: flex may hold 4, with standard 5, all together 6.

    A tenant may hold one less of each, and one of its accounts two less. Whose slice a slot will hold is known once it
    is claimed: until then a slot that is taken counts for its lane alone, and claims must come one after the other for
    these limits to hold.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[Lane] = Counter()
        self._of: dict[str, Counter[Lane]] = {}
        self._owed: Counter[Lane] = Counter()
        self._ever_owed: Counter[Lane] = Counter()
        self._passed: set[Lane] = set()
        self._resting = 0

    def has_free(self, lane: Lane) -> bool:
        """Whether `take` would find one just now."""
        with self._lock:
            return self._free(lane)

    def take(self, lane: Lane) -> bool:
        """Take a slot for a slice of this lane or a more urgent one; False if the lane has none left now."""
        with self._lock:
            free = self._free(lane)
            if free:
                self._held[lane] += 1
            return free

    @contextmanager
    def slot(self, lane: Lane) -> Iterator[SliceSlot | None]:
        """A slot for a slice of this lane or a more urgent one, given back on every way out; None if none is free."""
        if not self.take(lane):
            yield None
            return
        slot = SliceSlot(self, lane)
        try:
            yield slot
        finally:
            slot.leave()

    def _free(self, lane: Lane) -> bool:
        return _fits(self._held, lane)

    def turn(self, taken: Lane, lane: Lane, *owners: str) -> None:
        """A slot that was taken for one lane holds a slice, or several small ones, of the same or a more urgent one."""
        with self._lock:
            self._held[taken] -= 1
            self._held[lane] += 1
            for owner in owners:
                self._of.setdefault(owner, Counter())[lane] += 1

    def give(self, lane: Lane, *owners: str) -> None:
        """Give a slot back, with its accounts if it held slices: those who passed over them may try again."""
        with self._lock:
            self._held[lane] -= 1
            if not owners:
                return
            for owner in owners:
                self._of[owner][lane] -= 1
                if not self._of[owner].total():
                    del self._of[owner]
            for passed in self._passed:
                self._owe(passed)

    def rest(self, lane: Lane, *owners: str) -> bool:
        """A slice only waits for its last answers: give its slot back; False, and nothing changes, if too many rest."""
        with self._lock:
            if self._resting >= MOST_RESTING:
                return False
            self._resting += 1
        self.give(lane, *owners)
        return True

    def end(self) -> None:
        """A slice that rested is over."""
        with self._lock:
            self._resting -= 1

    def full(self) -> dict[Lane, frozenset[str]]:
        """The accounts that may hold no more slots of each lane; lanes without any are left out."""
        with self._lock:
            return self._full()

    def _full(self) -> dict[Lane, frozenset[str]]:
        tenants: dict[str, Counter[Lane]] = {}
        for account, held in self._of.items():
            tenants.setdefault(tenant_of(account), Counter()).update(held)
        full = {
            lane: frozenset(
                account
                for tenant, of_both in tenants.items()
                for account in accounts(tenant)
                if not (_fits(of_both, lane, 1) and _fits(self._of.get(account, Counter()), lane, 2))
            )
            for lane in LANES
        }
        return {lane: found for lane, found in full.items() if found}

    def owe(self, lane: Lane) -> None:
        """Remember a hint that found no slot, or no engine; more than slots there are would be no use."""
        with self._lock:
            self._owe(lane)

    def _owe(self, lane: Lane) -> None:
        self._owed[lane] = min(self._owed[lane] + 1, MOST_SLICE_SLOTS[lane])
        self._ever_owed[lane] += 1

    @property
    def ever_owed(self) -> Counter[Lane]:
        """How often each lane was owed a hint so far, by which a look knows what was owed before it began."""
        with self._lock:
            return self._ever_owed.copy()

    def forgive(self, lane: Lane, before: Counter[Lane]) -> None:
        """A look found nothing of this lane or a more urgent one: only what was owed since `before` (`ever_owed` when
        it began) still is."""
        with self._lock:
            for looked in LANES[: lane.rank + 1]:
                self._owed[looked] = min(self._owed[looked], self._ever_owed[looked] - before[looked])
                self._passed.discard(looked)

    def pass_over(self, lane: Lane, full: Mapping[Lane, frozenset[str]]) -> None:
        """A look found only slices of full accounts, if any: one is owed each time that a slot is given back, until a
        look finds nothing while none is full."""
        with self._lock:
            self._passed.add(lane)
            now = self._full()
            if not all(found <= now.get(of, frozenset()) for of, found in full.items()):
                self._owe(lane)  # one gave a slot back meanwhile

    def due(self) -> list[Lane]:
        """Hints to say again now that a slot may be free: at most one for each lane that has one."""
        with self._lock:
            lanes = [lane for lane in LANES if self._owed[lane] and self._free(lane)]
            for lane in lanes:
                self._owed[lane] -= 1
            return lanes

    @property
    def held(self) -> dict[Lane, int]:
        """Slots in use, by lane."""
        with self._lock:
            return dict(self._held)


class SliceSlot:
    """One slot in use: of a lane until its claim is known, of a slice while its lines are fed, then of none."""

    def __init__(self, slice_slots: SliceSlots, lane: Lane, *owners: str) -> None:
        self._slice_slots = slice_slots
        self._lane = lane
        self._owners = owners
        self._rests = False

    def turn(self, lane: Lane, *owners: str) -> None:
        """It holds a slice, or several small ones, of this lane and these accounts from now on; called once."""
        self._slice_slots.turn(self._lane, lane, *owners)
        self._lane, self._owners = lane, owners

    def rest(self) -> bool:
        """Its lines are all in the engine; says whether that set its slot free just now."""
        if self._rests or not self._slice_slots.rest(self._lane, *self._owners):
            return False
        self._rests = True
        return True

    def leave(self) -> None:
        """The slice is over, or there was none; called once."""
        if self._rests:
            self._slice_slots.end()
        else:
            self._slice_slots.give(self._lane, *self._owners)


def _fits(held: Counter[Lane], lane: Lane, less: int = 0) -> bool:
    """One more fits if every limit that counts this lane has room."""
    return all(
        sum(held[other] for other in LANES[limit.rank :]) < MOST_SLICE_SLOTS[limit] - less
        for limit in LANES[: lane.rank + 1]
    )
