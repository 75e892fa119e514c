"""The data folder of `penstock up`: where everything lies, who may read it, and that only one platform uses it.

    DIR/key               the API key of the first tenant (0600), unless PENSTOCK_BOOTSTRAP_KEY is set
    DIR/ingress-token     what API and gpu worker know each other by (0600), unless PENSTOCK_INGRESS_TOKEN is set
    DIR/metrics-token     what a scrape of /metrics shows (0600), unless PENSTOCK_METRICS_TOKEN is set
    DIR/secret-keys       what webhook secrets are encrypted with (0600), unless PENSTOCK_SECRET_KEYS(_FILE) is set
    DIR/flower-password   0600
    DIR/postgres, valkey, blobs, scratch, models, logs
    DIR/lock              held while a platform runs here

Unix sockets and process records lie in a runtime folder with a short path: an address has at most 107 bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.service.webhooks.secret_keys import new_key
from penstock.stack import child_environment
from penstock.stack.problem import Problem


@dataclass(frozen=True)
class Layout:
    """The places in one data folder."""

    data: Path

    @property
    def key_file(self) -> Path:
        """The API key, for the CLI."""
        return self.data / "key"

    @property
    def ingress_token_file(self) -> Path:
        """The secret between API and gpu worker, by which waiting calls come in."""
        return self.data / "ingress-token"

    @property
    def metrics_token_file(self) -> Path:
        """What /metrics is read with."""
        return self.data / "metrics-token"

    @property
    def secret_keys_file(self) -> Path:
        """The keys of webhook secrets, one a line: the first encrypts, all decrypt."""
        return self.data / "secret-keys"

    @property
    def flower_password_file(self) -> Path:
        """Flower's password; its user is `penstock`."""
        return self.data / "flower-password"

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.data / "logs"

    @property
    def blob_url(self) -> str:
        """The blob store on disk."""
        return f"file://{self.data / 'blobs'}"

    @property
    def scratch(self) -> Path:
        """Files that are being spooled or assembled."""
        return self.data / "scratch"

    @property
    def models(self) -> Path:
        """The models that the project makes."""
        return self.data / "models"

    def make(self) -> None:
        """Create the folders, open to their owner only."""
        try:
            for folder in (self.data, self.logs, self.scratch, self.data / "blobs", self.models):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise Problem(f"The data folder {self.data} can't be made: {error.strerror}.") from None


def at(data: Path) -> Layout:
    """The layout of this folder."""
    return Layout(data.expanduser().resolve())


@contextmanager
def held(layout: Layout) -> Iterator[None]:
    """Be the only platform on this data folder; the kernel lets go when the process ends, however it ends."""
    with (layout.data / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise Problem(f"Another `penstock up` (process {owner}) uses {layout.data}: stop it first.") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def runtime_folder(layout: Layout, environment: Mapping[str, str]) -> Path:
    """A short folder of our own for sockets, the same for the same data folder."""
    name = "penstock-" + hashlib.sha256(os.fsencode(layout.data)).hexdigest()[:10]
    given = environment.get("XDG_RUNTIME_DIR")
    roots = [Path(given)] if given and len(given) <= 40 and os.access(given, os.W_OK) else []
    root = next(iter(roots), Path("/tmp"))
    folder = root / (name if roots else f"{name}-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise Problem(f"{folder} belongs to somebody else: remove it, or use another data folder.")
    folder.chmod(0o700)
    return folder


def api_key(layout: Layout, environment: Mapping[str, str]) -> tuple[str, bool]:
    """The first tenant's key, and whether it was made just now."""
    if given := environment.get(child_environment.KEY):
        return given, False
    return _secret(layout.key_file, "sk-penstock-")


def ingress_token(layout: Layout, environment: Mapping[str, str]) -> str:
    """The secret between API and gpu worker, made at the first start."""
    return environment.get(child_environment.INGRESS_TOKEN) or _secret(layout.ingress_token_file, "")[0]


def metrics_token(layout: Layout, environment: Mapping[str, str]) -> str:
    """What /metrics is read with, made at the first start."""
    return environment.get(child_environment.METRICS_TOKEN) or _secret(layout.metrics_token_file, "")[0]


def secret_keys(layout: Layout, environment: Mapping[str, str]) -> dict[str, str]:
    """Where processes find the keys of webhook secrets: in the environment, or in a file made at the first start."""
    if given := {name: environment[name] for name in child_environment.SECRET_KEYS if environment.get(name)}:
        return given
    _secret(layout.secret_keys_file, "", new_key)
    return {child_environment.SECRET_KEYS[1]: str(layout.secret_keys_file)}


def flower_password(layout: Layout) -> str:
    """Flower's password, made at the first start."""
    return _secret(layout.flower_password_file, "")[0]


def _chance() -> str:
    return secrets.token_urlsafe(32)


def _secret(file: Path, prefix: str, make: Callable[[], str] = _chance) -> tuple[str, bool]:
    if file.exists():
        file.chmod(0o600)
        if kept := file.read_text().strip():
            return kept, False
    made = prefix + make()
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(made + "\n")
    return made, True
