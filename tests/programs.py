"""Programs of the machine that some tests need and `make install` can't bring: where they are, or what is missing."""

from __future__ import annotations

import os
import shutil
from typing import Final

import pytest

REQUIRED: Final = "PENSTOCK_TEST_REQUIRED"
"""Debian packages that must be on this machine, by comma: their tests fail where they are not, and are not skipped."""


def program(name: str, package: str) -> str:
    """Where a program is; without it the test is skipped with a line that says so, or fails if it is required."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        words = f"{name} is not here: apt-get install {package}"
        if package in os.environ.get(REQUIRED, "").split(","):
            pytest.fail(words)
        pytest.skip(words)
    return found
