"""Cases of a fault test: `make test` has one or two of a kind, `make faults-slow` all."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from _pytest.mark.structures import ParameterSet


def further(*cases: object) -> Sequence[ParameterSet]:
    """Cases whose fault comes at another place of the same way: `make faults-slow` has them."""
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]
