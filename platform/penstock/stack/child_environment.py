"""Child environments: of what the operator's environment holds, each child of `penstock up` gets what it needs.

A server that nobody asked for a secret can't lose it: what has no use in a process is not there to be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KEY: Final = "PENSTOCK_BOOTSTRAP_KEY"
INGRESS_TOKEN: Final = "PENSTOCK_INGRESS_TOKEN"
METRICS_TOKEN: Final = "PENSTOCK_METRICS_TOKEN"
ENGINE_KEY: Final = "PENSTOCK_ENGINE_KEY"
"""For an engine that runs elsewhere (`--engine-url`), if it asks for one."""
ENGINE_KEY_FILE: Final = "PENSTOCK_ENGINE_KEY_FILE"
"""The same in a file."""
SECRET_KEYS: Final = ("PENSTOCK_SECRET_KEYS", "PENSTOCK_SECRET_KEYS_FILE")
"""Keys of webhook secrets: for who makes them (api), signs with them (io), and encrypts them again (migrate)."""

_BLOBS: Final = frozenset({"api", "keeper", "io", "gpu", "pool"})
_NEEDS: Final[Mapping[str, frozenset[str]]] = {
    KEY: frozenset({"api"}),
    INGRESS_TOKEN: frozenset({"api", "gpu", "pool"}),
    METRICS_TOKEN: frozenset({"api", "gpu", "pool"}),
    **dict.fromkeys((ENGINE_KEY, ENGINE_KEY_FILE), frozenset({"gpu"})),
    **dict.fromkeys(SECRET_KEYS, frozenset({"api", "io", "migrate"})),
    "PENSTOCK_DATABASE_URL": _BLOBS | {"migrate"},
    "HF_TOKEN": frozenset({"gpu", "pool"}),
    "HUGGING_FACE_HUB_TOKEN": frozenset({"gpu", "pool"}),
}
"""Which children need a secret; a variable that is not named is none of ours, and goes to all but the servers."""
_CREDENTIALS: Final = ("AWS_", "AZURE_", "GOOGLE_")
"""Of object stores (docs.rs/object_store: its builders' variables): for those who read and write blobs."""
_PLAIN: Final = frozenset({"PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"})
"""What a server from a wheel may need."""


def of(child: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the child with this name: `postgres`, `valkey`, `migrate`, `keeper`, `io`, `gpu` and so on."""
    if child in ("postgres", "valkey"):
        return {name: value for name, value in environment.items() if name in _PLAIN or name.startswith("LC_")}
    return {name: value for name, value in environment.items() if _needs(child, name)}


def _needs(child: str, name: str) -> bool:
    if name.startswith(_CREDENTIALS):
        return child in _BLOBS
    return child in _NEEDS[name] if name in _NEEDS else True
