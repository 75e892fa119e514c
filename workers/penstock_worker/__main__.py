"""`python -m penstock_worker`: the command line, imported quickly."""

from __future__ import annotations

from penstock.uncollected import uncollected

with uncollected():
    from penstock_worker.command_line import main

if __name__ == "__main__":
    main()
