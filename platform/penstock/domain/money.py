"""Money: in what it is counted."""

from __future__ import annotations

from typing import Final

PICOS: Final = 10**12
"""Picounits in one of the currency: so small that no price of a token and no sum is ever rounded."""
