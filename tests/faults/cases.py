"""Cases of a test that has many: `make test` has some of a kind, `make faults-slow` the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from _pytest.mark.structures import ParameterSet


def further(*cases: object) -> Sequence[ParameterSet]:
    """Cases of the same way, as whose fault comes at another place of it: `make faults-slow` has them."""
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]


def every_third(cases: Iterable[object]) -> Sequence[object]:
    """All cases, of which two thirds are `further` ones."""
    return [case if number % 3 == 0 else further(case)[0] for number, case in enumerate(cases)]
