"""The scope: what the middleware around API and console keeps in a request's scope, by name.

Both rooms are below that middleware and know nothing of each other: they share these words.
"""

from __future__ import annotations

from typing import Final

ACCESS: Final = "penstock.access"
"""What the request's maker may do."""
TURN: Final = "penstock.turn"
"""Its turn among the requests of this process; `leave` gives it back."""
HEAD: Final = "penstock.head"
"""There if the head of an answer alone is wanted."""
ENDLESS: Final = "penstock.endless"
"""What ends an answer that goes on, when the process is about to stop: functions."""
REQUEST_ID: Final = "penstock.request_id"
"""Its id, for the audit."""
