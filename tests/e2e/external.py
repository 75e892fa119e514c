"""Servers that an operator brings along: a pgbouncer in transaction mode, and an S3, each a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import boto3
import httpx
import psycopg
from botocore.config import Config
from e2e.live import until
from programs import program

from penstock.stack.child import Child, last_lines
from penstock.stack.ports import free_port

PAGE: Final = Path(__file__).parents[2] / "docs" / "operations.md"
BUCKET: Final = "answers"
PASSWORD: Final = "a-password-of-the-pooler"


@dataclass(frozen=True)
class Pooler:
    """A pgbouncer in transaction mode before one Postgres: its databases are that server's."""

    port: int
    child: Child

    def url(self, database: str = "postgres") -> str:
        """As operators write it, with a password."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def ask(self, command: str) -> list[dict[str, object]]:
        """What `SHOW …` says, or do another command of pgbouncer's console."""
        with psycopg.connect(self.url("pgbouncer"), autocommit=True) as console:
            # The console knows the simple protocol alone.
            found = console.pgconn.exec_(command.encode())
            names = [(found.fname(column) or b"").decode() for column in range(found.nfields)]
            return [
                {name: (found.get_value(row, column) or b"").decode() for column, name in enumerate(names)}
                for row in range(found.ntuples)
            ]


@contextmanager
def pooler(sockets: Path, folder: Path, *, connections: int = 12) -> Iterator[Pooler]:
    """Pgbouncer as docs/operations.md sets it up, with so many connections to the Postgres on this socket."""
    binary = program("pgbouncer", "pgbouncer")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    users = folder / "userlist.txt"
    users.write_text(f'"postgres" "{PASSWORD}"\n')
    settings = folder / "pgbouncer.ini"
    section = PAGE.read_text().partition("\n## A pooler\n")[2].partition("\n## ")[0]
    [page] = re.findall(r"^```ini\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    for here, there in {
        "host=db.internal port=5432": f"host={sockets}",
        "listen_addr = 0.0.0.0": "listen_addr = 127.0.0.1",
        "listen_port = 6432": f"listen_port = {port}",
        "/etc/pgbouncer/userlist.txt": str(users),
        "default_pool_size = 20": f"default_pool_size = {connections}",
    }.items():
        assert here in page
        page = page.replace(here, there)
    settings.write_text(f"{page}unix_socket_dir =\nadmin_users = postgres\n")
    # It refuses to be root, as Postgres does; both are then the same ordinary user.
    user = "nobody" if os.geteuid() == 0 else None
    if user:
        for path in (folder, users, settings):
            shutil.chown(path, user)
    with Child("pgbouncer", [binary, str(settings)], log=folder / "log", user=user, stop_signal=signal.SIGINT) as child:
        one = Pooler(port, child)

        def answers() -> bool:
            assert child.pid, last_lines(child.log)
            try:
                return bool(one.ask("SHOW VERSION"))
            except psycopg.OperationalError:
                return False

        until(answers, lambda: f"pgbouncer answers: {last_lines(child.log)}", 20)
        yield one


@dataclass(frozen=True)
class S3:
    """An object store that speaks S3, with one bucket; everything in it goes with the process."""

    endpoint: str
    child: Child

    @property
    def url(self) -> str:
        """Of a prefix in the bucket."""
        return f"s3://{BUCKET}/of-the-tests"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process is told beside the URL (docs/operations.md)."""
        return {
            "AWS_ENDPOINT": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
        }

    def client(self):  # type: ignore[no-untyped-def]
        """AWS's own client."""
        told = self.environment
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=told["AWS_REGION"],
            aws_access_key_id=told["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=told["AWS_SECRET_ACCESS_KEY"],
            config=Config(proxies={}),
        )

    def objects(self) -> list[bytes]:
        """All that is in the bucket, the first thousand by key."""
        client = self.client()
        keys = [one["Key"] for one in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
        return [client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and says nothing: SIGSTOP, and SIGCONT at the end."""
        pid = self.child.pid
        assert pid is not None, last_lines(self.child.log)
        os.killpg(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(pid, signal.SIGCONT)


@contextmanager
def s3(folder: Path) -> Iterator[S3]:
    """`moto` as a server with the bucket made."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with Child("moto", command, log=folder / "moto.log") as child:
        one = S3(f"http://127.0.0.1:{port}", child)

        def answers() -> bool:
            assert child.pid, last_lines(child.log)
            try:
                return httpx.get(f"{one.endpoint}/moto-api/", timeout=5, trust_env=False).status_code < 500
            except httpx.HTTPError:
                return False

        until(answers, lambda: f"moto answers: {last_lines(child.log)}", 30)
        one.client().create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield one
