"""Forks: a script's imports are paid once, and a fork of its process goes on for each word that it was given."""

from __future__ import annotations

EACH_IN_A_FORK = """
import gc, os, sys
gc.freeze()  # an end looks through all that was imported once more: a few seconds of vLLM
for said in words:
    if not (child := os.fork()):
        break
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
else:
    sys.exit()
"""
"""In the middle of a script that has `words`: what follows runs with `said`, one after the other; a failure ends it."""
