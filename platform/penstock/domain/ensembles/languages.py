"""Languages: those that a rule may ask for, by their ISO 639-1 codes."""

from __future__ import annotations

from typing import Final

_CODES: Final = """
    af am an ar as az ba be bg bn br bs ca cs cy da de dz el en eo es et eu fa fi fo fr fy ga gd gl gu ha he hi
    hr ht hu hy id ig is it ja jv ka kk km kn ko ku ky la lb lg ln lo lt lv mg mk ml mn mr ms mt my ne nl nn no
    oc om or pa pl ps pt qu ro ru rw sa se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz vi
    vo wa xh yo zh zu
"""
LANGUAGES: Final = frozenset(_CODES.split())
"""All two-letter codes that scoring/language.py may find."""
