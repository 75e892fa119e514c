"""Batch words: what people are told of a batch, in the command line and on pages alike."""

from __future__ import annotations


def left(total: int, completed: int, failed: int) -> int:
    """How many lines have no end yet."""
    return total - completed - failed


def counted(total: int, completed: int, failed: int) -> str:
    """`2 answered · 1 failed · 0 left`: a failed line is an end, and never looks like an answer."""
    return f"{completed:,} answered · {failed:,} failed · {left(total, completed, failed):,} left"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"


def roughly(seconds: float) -> str:
    """`45 s`, `14 min`, `3 h`: of what is not known better."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5_400 else f"{round(seconds / 3_600)} h"


def many(tokens: float) -> str:
    """`2.1 M`, `340 k`, `9,100`."""
    if tokens >= 1_000_000:
        return f"{tokens / 1e6:.1f} M"
    return f"{tokens / 1e3:.0f} k" if tokens >= 10_000 else f"{round(tokens):,}"


def outlook(expected: float, earliest: float, latest: float, now: float, *, in_time: bool) -> str:
    """`3 min 20 s left (2 min 5 s to 6 min 40 s)`, and whether that is too late; all in Unix seconds."""
    likely, least, most = (duration(max(0.0, at - now)) for at in (expected, earliest, latest))
    late = "" if in_time else ", after its deadline"
    return f"{likely} left ({least} to {most}{late})"
