"""(e) How long an engine takes to start, to sleep and to wake, and what it holds meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.gpu.part import Part, Row, Setting, benchmark


def _command(setting: Setting, minutes: float, json: Path) -> Sequence[str]:
    return benchmark("start", "--model", str(setting.models.large), *setting.arguments(), "--json", str(json))


def _rows(found: dict[str, Any]) -> Sequence[Row]:
    start, sleep = found.get("start") or {}, found.get("sleep") or {}
    return [
        _row(
            "cold start, to the first answer",
            start.get("seconds"),
            start.get("memory_mib"),
            of=start.get("compiled", ""),
        ),
        _row("sleep", sleep.get("seconds"), sleep.get("memory_mib"), sleep.get("why", "")),
        _row("wake, to the first answer", sleep.get("wake_seconds"), sleep.get("awake_mib"), sleep.get("why", "")),
    ]


def _row(what: str, seconds: float | None, memory_mib: float | None, why: str = "", of: str = "") -> Row:
    remark = "; ".join(words for words in (f"{memory_mib:,.0f} MiB after it" if memory_mib else "", of) if words)
    return Row(what, "s", seconds, None, remark=remark, alone=True, excuse=why)


PART: Final = Part("e", "cold start, sleep and wake: how long, and what memory?", 1, (60.0, 15.0), 0.5, _command, _rows)
