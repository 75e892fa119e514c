"""Words: numbers, times and texts as a person reads them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from markupsafe import Markup

_MULTIPLES: Final = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
_BINARY: Final = ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))
_ODD: Final = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What changes how text is shown without being seen: controls, zero widths, directions."""


def number(value: float | None) -> str:
    """`12,345`; a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:,.1f}"


def short(value: float | None) -> str:
    """`1.2 M`, three figures at most."""
    if value is None:
        return "–"
    for size, letter in _MULTIPLES:
        if abs(value) >= size:
            part = value / size
            return f"{part:.0f} {letter}" if part >= 100 else f"{part:.1f} {letter}"
    return number(value)


def size(value: float | None) -> str:
    """`1.2 MiB`."""
    if value is None:
        return "–"
    for unit, letter in _BINARY:
        if value >= unit:
            return f"{value / unit:.1f} {letter}"
    return f"{value:.0f} B"


def percent(part: float | None, whole: float | None = 1) -> str:
    """`12 %`, `0.4 %`; a part that is there is never 0, and one that lacks something never 100."""
    if part is None or not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "< 0.1 %"
    if 99.9 < share < 100:
        return "> 99.9 %"
    return f"{share:.1f} %" if share < 10 or 99 < share < 100 else f"{share:.0f} %"


def duration(seconds: float | None) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds is None:
        return "–"
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 2 * 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"


def moment(unix: float | None) -> Markup:
    """A time: when it was, exactly, and how long ago or ahead that is."""
    if unix is None:
        return Markup("–")
    at = datetime.fromtimestamp(unix, UTC)
    away = unix - time.time()
    words = f"in {duration(away)}" if away >= 1 else f"{duration(-away)} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat("T", "seconds"), f"{at:%Y-%m-%d %H:%M:%S} UTC", words
    )


def clock(unix: float | None) -> Markup:
    """A time to the minute, in UTC: today's without its date."""
    if unix is None:
        return Markup("–")
    at = datetime.fromtimestamp(unix, UTC)
    shown = f"{at:%H:%M}" if at.date() == datetime.now(UTC).date() else f"{at:%Y-%m-%d %H:%M}"
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}">{} UTC</time>').format(at.isoformat("T", "seconds"), exact, shown)


def money(amount: str | None, currency: str = "") -> str:
    """An amount as the API has it, a decimal number as text, to four figures behind the point."""
    if amount is None:
        return "–"
    value = Decimal(amount)
    shown = f"{value:,.2f}" if value == 0 or abs(value) >= 1 else f"{value:,.4f}"
    return f"{shown} {currency}".strip()


def visible(text: object) -> str:
    """A text of somebody else's, with what would show it otherwise than it is made visible: `⟨U+202E⟩`."""
    return _ODD.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", str(text))


def excerpt(text: object, most_bytes: int = 2_000) -> str:
    """The beginning of somebody else's text, made visible: so much of it that it takes `most_bytes` of a page."""
    shown = visible(str(text)[: most_bytes + 1])
    room = most_bytes
    for at, letter in enumerate(shown):
        room -= 5 if letter in "&<>\"'" else len(letter.encode("utf-8", "replace"))
        if room < 0:
            return f"{shown[:at]} …"
    return shown
