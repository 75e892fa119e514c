"""Languages: which one a text is in, by py3langid: naive Bayes over byte n-grams, offline, the same everywhere.

Its model (74 MB of memory, some tenths of a second) is loaded when the first text is looked at.
"""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any, Final

MOST_CHARACTERS: Final = 1_000
"""What is read of a text: half a millisecond."""
LEAST_CONFIDENCE: Final = 0.5
"""Of its language, against all others together: less is a guess, as of one word that several languages have."""
_loading: Final = Lock()


def language(text: str) -> str | None:
    """The ISO 639-1 code of the language that the beginning of a text is in, or None where that is not sure.

    Some languages have no such code: they are never None for it, but a code of three letters. Safe in threads.
    """
    beginning = text[:MOST_CHARACTERS].strip()
    if not beginning:
        return None
    with _loading:
        model = _model()
    found, confidence = model.classify(beginning)
    return found if confidence > LEAST_CONFIDENCE else None


def known() -> frozenset[str]:
    """All codes that there may be."""
    with _loading:
        return frozenset(_model().labels)


@cache
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
