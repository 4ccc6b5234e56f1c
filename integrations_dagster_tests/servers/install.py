"""Installs the server software that tests marked `servers` need, below `.servers/`: `make test-servers` runs it.

What is there already is left alone. What cannot be installed is said, and its tests are skipped with that reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

SERVERS = Path(__file__).parents[2] / ".servers"
"""Everything that is installed."""
TRYTON = SERVERS / "tryton"
TRYTON_PACKAGES = ("trytond==8.2.1", "trytond_country==8.2.0", "trytond_party==8.2.0", "trytond_currency==8.2.0")
TRYTON_PASSWORD = "Tryton-for-tests-1"
TRYTON_CONFIG = """\
[web]
listen = 127.0.0.1:{port}
[database]
uri = sqlite://
path = {folder}
list = True
[session]
timeout = {session}
"""
DIRECTUS = SERVERS / "directus"
DIRECTUS_PACKAGE = "directus@11.3.5"
"""The newest that runs on Node 20."""
DIRECTUS_TOKEN = "token-for-tests-of-directus"
DIRECTUS_SETTINGS = {
    "HOST": "127.0.0.1",
    "SECRET": "secret-for-tests",
    "KEY": "key-for-tests",
    "DB_CLIENT": "sqlite3",
    "ADMIN_EMAIL": "admin@example.com",
    "ADMIN_PASSWORD": "Directus-for-tests-1",
    "ADMIN_TOKEN": DIRECTUS_TOKEN,
    "TELEMETRY": "false",
    "LOG_LEVEL": "warn",
    "NODE_OPTIONS": "--no-node-snapshot",
}
SOAP = SERVERS / "soap"
SOAP_PACKAGES = ("soap@1.13.0",)
READY = "ready"
"""Beside what is installed whole: names what it is, so that another version is installed anew."""


def tryton() -> None:
    """Tryton in an environment of its own, and a database with the modules party and currency."""
    subprocess.run([sys.executable, "-m", "venv", str(TRYTON)], check=True)
    pip = [str(TRYTON / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *TRYTON_PACKAGES], check=True)
    (TRYTON / "trytond.conf").write_text(TRYTON_CONFIG.format(port=0, folder=TRYTON, session=300), "utf-8")
    (TRYTON / "password").write_text(TRYTON_PASSWORD, "utf-8")
    (TRYTON / "erp.sqlite").touch()
    admin = [str(TRYTON / "bin" / "trytond-admin"), "-c", str(TRYTON / "trytond.conf"), "-d", "erp"]
    env = os.environ | {"TRYTONPASSFILE": str(TRYTON / "password")}
    email = ["--email", "admin@example.com"]
    subprocess.run([*admin, "--all", *email, "-l", "en"], check=True, env=env)
    subprocess.run([*admin, "-u", "party", "currency", "--activate-dependencies", *email], check=True, env=env)


def directus() -> None:
    """Directus, and an empty database of SQLite with its administrator."""
    (DIRECTUS / "package.json").write_text('{"private": true}', "utf-8")
    npm = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", DIRECTUS_PACKAGE]
    subprocess.run(npm, check=True, cwd=DIRECTUS)
    env = directus_env(DIRECTUS / "empty.sqlite")
    subprocess.run(["node_modules/.bin/directus", "bootstrap"], check=True, cwd=DIRECTUS, env=env)


def directus_env(database: Path) -> dict[str, str]:
    """The environment of a Directus with this database."""
    return os.environ | DIRECTUS_SETTINGS | {"DB_FILENAME": str(database)}


def soap() -> None:
    """The npm package `soap`; what it serves is `soap_server.js`."""
    npm = ["npm", "install", "--prefix", str(SOAP), "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run([*npm, *SOAP_PACKAGES], check=True)


INSTALLERS: Mapping[str, tuple[Callable[[], None], str]] = {
    "directus": (directus, DIRECTUS_PACKAGE),
    "tryton": (tryton, " ".join(TRYTON_PACKAGES)),
    "soap": (soap, " ".join(SOAP_PACKAGES)),
}
"""Name to what installs it into the folder of that name, and what it is."""


def missing(name: str) -> str:
    """Why a server cannot be used, or "" if it can."""
    folder = SERVERS / name
    ready = folder / READY
    if ready.is_file() and ready.read_text("utf-8") == INSTALLERS[name][1]:
        return ""
    failed = SERVERS / f"{name}.failed"
    if failed.is_file():
        return f"{name} could not be installed: {failed.read_text('utf-8')}"
    return f"{name} is not installed: run make test-servers"


def install(name: str) -> bool:
    """Install one server, unless it is there; returns whether it is."""
    make, what = INSTALLERS[name]
    if not missing(name):
        return True
    print(f"Installing {name} ({what})", flush=True)
    folder, failed = SERVERS / name, SERVERS / f"{name}.failed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    failed.unlink(missing_ok=True)
    try:
        make()
    except (OSError, subprocess.CalledProcessError) as error:
        failed.write_text(str(error), "utf-8")
        print(f"{name} could not be installed, so that its tests are skipped: {error}", flush=True)
        return False
    (folder / READY).write_text(what, "utf-8")
    return True


if __name__ == "__main__":
    for name in sys.argv[1:] or INSTALLERS:
        install(name)
