"""Which room may import which: read from the source, and seen in fresh processes."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import integrations_dagster

# One worker reads the sources, for all of them.
pytestmark = pytest.mark.xdist_group("sources")

PACKAGE = "integrations_dagster"
ROOT = Path(integrations_dagster.__file__).parent
BOTTOM = {"vocabulary", "keys", "plugins"}
LOW = BOTTOM | {"destinations", "ledger", "warehouses"}
MIDDLE = LOW | {"delivery", "planner"}
MAY_IMPORT = {
    "vocabulary": set[str](),
    "keys": set[str](),
    "plugins": {"vocabulary"},
    "destinations": BOTTOM,
    "ledger": BOTTOM,
    "warehouses": BOTTOM,
    "sandbox": BOTTOM,
    "planner": LOW,
    "delivery": LOW | {"sandbox"},
    "sync": MIDDLE,
    "orchestration": MIDDLE | {"sync"},
    "components": MIDDLE | {"sync", "orchestration"},
    "definitions": MIDDLE | {"sync", "orchestration", "components"},
    "defs": MIDDLE | {"sync", "orchestration", "components"},
    "cli": MIDDLE | {"sync", "orchestration", "components", "sandbox"},
    "testing": MIDDLE | {"sync"},
    "__init__": {"components", "sync"},
}
"""Rooms, from the bottom up. The sandbox stands apart: it knows nothing of the rest."""
KNOW_DAGSTER = {"orchestration", "components", "definitions", "defs", "cli"}
DO_IO = {
    *("aiohttp", "asyncio", "duckdb", "http", "httpx", "multiprocessing", "os", "pathlib", "pyarrow", "requests"),
    *(
        "selectors",
        "shutil",
        "socket",
        "sqlalchemy",
        "sqlite3",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "urllib3",
    ),
}
"""What a destination may not import: it says what to send, and others send it."""


def room_of(file: Path) -> str:
    """The room of a file: its folder or its own name below the package."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def files(room: str | None = None) -> list[Path]:
    return [file for file in sorted(ROOT.rglob("*.py")) if room is None or room_of(file) == room]


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of a file, those in functions and for type checkers too."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def offences(allowed: object) -> list[str]:
    """ "file:line: module" of every import that `allowed` refuses."""
    return [
        f"{file.relative_to(ROOT)}:{line}: {module}"
        for file in files()
        for line, module in imports(file)
        if not allowed(room_of(file), module)  # type: ignore[operator]
    ]


def test_every_room_is_known() -> None:
    assert {room_of(file) for file in files()} <= set(MAY_IMPORT)


def test_arrows_run_downward() -> None:
    def allowed(room: str, module: str) -> bool:
        top, *rest = module.split(".")
        if top != PACKAGE or not rest:
            return True
        other = room_of(ROOT / rest[0])
        return other == room or other in MAY_IMPORT[room]

    assert offences(allowed) == []


def test_delivery_knows_only_where_the_sandbox_is() -> None:
    def allowed(room: str, module: str) -> bool:
        return (
            room != "delivery"
            or not module.startswith(f"{PACKAGE}.sandbox")
            or module.startswith(f"{PACKAGE}.sandbox.endpoint.")
        )

    assert offences(allowed) == []


def test_only_the_upper_rooms_know_dagster() -> None:
    assert offences(lambda room, module: room in KNOW_DAGSTER or not module.split(".")[0].startswith("dagster")) == []


def test_destinations_do_no_io() -> None:
    def allowed(room: str, module: str) -> bool:
        return room != "destinations" or (module.split(".")[0] not in DO_IO and not module.startswith("urllib.request"))

    assert offences(allowed) == []


def test_pandas_is_imported_where_it_is_used() -> None:
    found = []
    for file in files():
        tree = tree_of(file)
        inside = {
            id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)
        }
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if id(node) not in inside and any(name.split(".")[0] == "pandas" for name in names):
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert found == []


def test_the_rules_notice_an_offence(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import a.b\nfrom c import d, e\ndef f():\n    import g\n")
    assert list(imports(file)) == [(1, "a.b"), (2, "c.d"), (2, "c.e"), (4, "g")]


def loaded_by(statements: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after these statements."""
    code = f"{statements}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


WITH_ZEEP = {f"{PACKAGE}.destinations.soap.{name}" for name in ("calls", "shapes", "wsdl")}
"""They load zeep, which loads `requests` for a transport of its own; that is never made. No other module loads them."""


def modules(room: str) -> list[str]:
    found = [f"{PACKAGE}.{room}"]
    if (ROOT / room).is_dir():
        found += [m.name for m in pkgutil.walk_packages([str(ROOT / room)], f"{PACKAGE}.{room}.")]
    return [name for name in found if not name.endswith("__main__") and name not in WITH_ZEEP]


@pytest.mark.parametrize(
    ("rooms", "more"),
    [
        (["destinations"], {"requests", "urllib3", "duckdb", "sqlalchemy"}),
        # All in one process: whichever loads one of these, it is seen.
        (["ledger", "warehouses", "planner", "delivery", "sync", "sandbox", "testing"], set()),
    ],
)
def test_rooms_load_without_dagster_and_pandas(rooms: list[str], more: set[str]) -> None:
    found = {room: modules(room) for room in rooms}
    assert all(len(names) > 1 for names in found.values())
    loaded = loaded_by("\n".join(f"import {name}" for names in found.values() for name in names))
    assert loaded & ({"dagster", "pandas"} | more) == set()


def test_the_package_loads_nothing() -> None:
    assert loaded_by(f"import {PACKAGE}, {PACKAGE}.vocabulary") & {"dagster", "pandas", "requests", "pydantic"} == set()


def test_the_package_exports_its_components() -> None:
    seen = loaded_by(f"from {PACKAGE} import Destination, Model, Sync, Warehouse")
    assert "dagster" in seen
    assert "pandas" not in seen


def test_the_code_location_loads_without_pandas() -> None:
    assert "pandas" not in loaded_by(f"import {PACKAGE}.definitions as d; d.defs()")
