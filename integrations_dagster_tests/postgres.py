"""A PostgreSQL server of a test session's own, on loopback, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2  # type: ignore[import-untyped]
import pytest


@dataclass(frozen=True, slots=True)
class Postgres:
    """Where the server listens, and its superuser."""

    port: int
    user: str
    password: str
    host: str = "127.0.0.1"

    def url(self, database: str, user: str = "", password: str = "") -> str:
        """The URL of a database, for the superuser or another user."""
        return f"postgresql://{user or self.user}:{password or self.password}@{self.host}:{self.port}/{database}"

    def execute(self, database: str, *statements: str) -> None:
        """Execute statements as the superuser, in one transaction."""
        connection = psycopg2.connect(self.url(database))
        with contextlib.closing(connection), connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def create_database(self) -> str:
        """Create an empty database; returns its name."""
        name = f"test_{secrets.token_hex(4)}"
        connection = psycopg2.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname="postgres"
        )
        with contextlib.closing(connection):
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name}")
        return name


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL server that is installed, or None."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parents[1].name.split(".")[0])
    )
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@contextlib.contextmanager
def running_postgres(**settings: str) -> Iterator[Postgres]:
    """Start a server, and stop it in the end. Skips the test where none is installed.

    Args:
        settings: Further settings of the server.
    """
    folder = binaries()
    if folder is None:
        if os.environ.get("CI"):
            pytest.fail("no PostgreSQL server is installed (initdb not found), and CI skips no test of it")
        pytest.skip("no PostgreSQL server is installed (initdb not found)")
    user = _server_user()
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        home = Path(name)
        password = secrets.token_hex(8)
        (home / "password").write_text(password, "utf-8")
        if user is not None:
            for path in (home, home / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
        data = home / "data"
        made = ["--username=tester", "--auth=scram-sha-256", f"--pwfile={home / 'password'}", "--no-sync"]
        _run(user, home, [str(folder / "initdb"), "-D", str(data), "-E", "UTF8", *made])
        for _ in range(5):
            port = _free_port()
            options = f"-c listen_addresses=127.0.0.1 -p {port} -k {home} -c fsync=off -c max_connections=100"
            options += "".join(f" -c {name}={value}" for name, value in settings.items())
            start = [str(folder / "pg_ctl"), "-D", str(data), "-w", "-t", "60", "-l", str(home / "log"), "-o", options]
            try:
                _run(user, home, [*start, "start"])
            except subprocess.CalledProcessError:
                continue  # someone else was given the port in the meantime
            break
        else:
            raise RuntimeError((home / "log").read_text("utf-8", "replace"))
        server = Postgres(port, "tester", password)
        try:
            _await(server)
            yield server
        finally:
            _run(user, home, [str(folder / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop"])


def _server_user() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: an unprivileged user for it, or None for the caller."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")


def _run(user: pwd.struct_passwd | None, home: Path, command: list[str]) -> None:
    subprocess.run(
        command,
        check=True,
        cwd=home,
        stdin=subprocess.DEVNULL,
        # The server keeps what pg_ctl gives it; a pipe would never end.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"},
        timeout=90,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await(server: Postgres) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg2.connect(
                host=server.host, port=server.port, user=server.user, password=server.password, dbname="postgres"
            ).close()
            return
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
