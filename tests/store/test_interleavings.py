"""Interleavings: two transactions whose statements alternate in any way leave one result, and the batch still ends.

Drawn by a seeded generator: a scene, a pair of moves, and which of the two does each next step. PENSTOCK_INTERLEAVINGS
says how many, PENSTOCK_SEED draws others, and a failure names its number; PENSTOCK_FIRST begins there.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from store.meeting import MOVES, meet
from store.scenes import Scenes
from store.steps import Stage
from store.world import World

# The races that one would think of first: half of all that is drawn.
RACES = {
    "running": [
        ("cancel", "settle"),
        ("expire", "flush"),
        ("cancel", "feed"),
        ("expire", "feed"),
        ("cancel", "claim"),
        ("reap", "settle"),
        ("reap", "flush"),
        ("reap", "beat"),
        ("release", "cancel"),
        ("reap", "reap"),
        ("cancel", "expire"),
        ("reap", "trial"),
        ("reap", "engine dies"),
        ("engine dies", "cancel"),
        ("engine dies", "settle"),
        ("engine dies", "engine dies"),
        ("pause", "feed"),
        ("pause", "claim"),
        ("pause", "release"),
        ("pause", "reap"),
        ("pause", "settle"),
        ("pause", "resume"),
        ("pause", "cancel"),
        ("resume", "expire"),
        ("move", "feed"),
        ("move", "claim"),
        ("move", "promote"),
        ("promote", "claim"),
        ("feed", "feed"),
        ("feed", "claim"),
        ("claim", "claim"),
        ("record", "reap"),
        ("record", "cancel"),
        ("record", "expire"),
        ("record", "give back all"),
        ("record", "settle"),
        ("record", "pause"),
        ("give back all", "reap"),
    ],
    "folding": [
        ("ask", "cancel"),
        ("ask", "expire"),
        ("ask", "reap"),
        ("ask", "pause"),
        ("ask", "ask"),
        ("ask", "release"),
        ("ask", "move"),
        ("ask", "feed"),
        ("fold", "cancel"),
        ("fold", "reap"),
        ("fold", "pause"),
        ("fold", "pass over"),
        ("record fold", "reap"),
        ("settle fold", "cancel"),
        ("settle fold", "reap"),
        ("take fold", "reap"),
        ("take fold", "cancel"),
        ("pass over", "claim"),
        ("pass over", "cancel"),
    ],
    "validating": [
        ("cancel", "begin"),
        ("expire", "begin"),
        ("begin", "begin late"),
        ("give up", "begin"),
        ("put off", "cancel"),
        ("move", "begin"),
        ("pause", "begin"),
    ],
    "finalizing": [
        ("commit", "commit late"),
        ("give up", "commit"),
        ("reap", "commit"),
        ("take", "commit late"),
        ("put off", "reap"),
    ],
}


def drawn(chance: random.Random, scenes: Scenes) -> tuple[str, bool, bool, str, str, list[int]]:
    """A scene, whether its leases are past their time and its deadline has passed, two moves, and their schedule."""
    kind = chance.choice(sorted(MOVES))
    name = chance.choice(sorted(name for name, scene in scenes.protos.items() if scene.kind == kind))
    if chance.random() < 0.5:
        first, second = chance.choice(RACES[kind])
    else:
        first, second = chance.choice(sorted(MOVES[kind])), chance.choice(sorted(MOVES[kind]))
    if chance.random() < 0.5:
        first, second = second, first
    if "whole" in name:  # there is nothing left to send
        first, second = (f"{move} again" if move in ("flush", "record") else move for move in (first, second))
    if chance.random() < 0.3:
        schedule = [0] * chance.randrange(12) + [1] * 40  # one is held, the other does all that it can
    else:
        schedule = [chance.randrange(2) for _ in range(24)]
    return name, chance.random() < 0.7, chance.random() < 0.7, first, second, schedule


@pytest.mark.timeout(3600)
def test_however_two_transactions_interleave_they_agree_and_the_batch_ends(world: World) -> None:
    seed, first = os.environ.get("PENSTOCK_SEED", "1"), int(os.environ.get("PENSTOCK_FIRST", "0"))
    count = int(os.environ.get("PENSTOCK_INTERLEAVINGS", "100"))
    with Stage(world) as stage:
        scenes = Scenes(world, stage.look)
        began = time.monotonic()
        for number in range(first, first + count):
            name, lapsed, overdue, *pair, schedule = drawn(random.Random(f"{seed} {number}"), scenes)
            scene = scenes.copy(name, lapsed, overdue)
            try:
                told = meet(world, scenes, stage, scene, (pair[0], pair[1]), lapsed, schedule)
            except BaseException as error:
                error.add_note(f"interleaving {number} of seed {seed}")
                raise
            if os.environ.get("PENSTOCK_TELL"):
                print(number, told)
    seconds = time.monotonic() - began
    print(f"{count} interleavings in {seconds:.0f} s: {count / seconds:.0f} a second")
