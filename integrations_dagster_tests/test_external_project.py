"""Another Dagster project installs the built wheel and uses the components: `dg`, plain loading, and a real run."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import duckdb
import pytest

from integrations_dagster_tests.components.project import FOLDERS, SYNC, ProjectFolder

# One worker builds the wheel, and installs it, for all of them.
pytestmark = pytest.mark.xdist_group("wheel")

REPOSITORY = Path(__file__).parents[1]
# A mirror delivers to an object of its own.
SECOND = SYNC.replace("people_to_hook", "second").replace("object: people", "object: others")
DEFINITIONS = """\
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
LOAD = """
import json, integrations_dagster
from external.definitions import defs
loaded = defs()
graph = loaded.resolve_asset_graph()
print(json.dumps({
    "file": integrations_dagster.__file__,
    "assets": sorted(key.to_user_string() for key in graph.get_all_asset_keys()),
    "jobs": {
        job.name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
        for job in loaded.resolve_all_job_defs() if not job.name.startswith("__")
    },
    "schedules": [schedule.cron_schedule for schedule in loaded.get_repository_def().schedule_defs],
}))
"""
RUN = """
import dagster as dg
from external.definitions import defs
job = next(job for job in defs().resolve_all_job_defs() if not job.name.startswith("__"))
with dg.DagsterInstance.ephemeral() as instance:
    assert job.execute_in_process(instance=instance).success
"""


@dataclass
class External:
    """A project that uses the installed wheel.

    Attributes:
        folder: The project.
        site: Where the wheel is installed.
    """

    folder: ProjectFolder
    site: Path

    def call(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, with the installed wheel before anything else."""
        home = self.folder.root / "home"
        home.mkdir(exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("INTEGRATIONS_", "DAGSTER_"))}
        return subprocess.run(
            command,
            cwd=self.folder.root,
            env={
                **kept,
                "PYTHONPATH": os.pathsep.join([str(self.site), str(self.folder.root)]),
                "HOME": str(home),
                "DAGSTER_HOME": str(home),
                "COLUMNS": "200",
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    def dg(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.call(sys.executable, "-m", "dagster_dg_cli.cli", *arguments)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a wheel, built from a copy, since a build writes beside its source."""
    pytest.importorskip("setuptools", reason="building a wheel without an index needs setuptools in the environment")
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(
        REPOSITORY / "integrations_dagster",
        source / "integrations_dagster",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("pyproject.toml", "README.md"):
        if (REPOSITORY / name).exists():
            shutil.copy(REPOSITORY / name, source / name)
        else:
            (source / name).touch()
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "-w", str(out), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed; its dependencies come from the environment of the tests."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    done = subprocess.run([*pip, "--target", str(target), str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture
def external(site: Path, tmp_path: Path) -> External:
    folder = ProjectFolder(tmp_path, {**FOLDERS, "second": SECOND}, package="external")
    (folder.root / "external" / "definitions.py").write_text(DEFINITIONS)
    with duckdb.connect(str(folder.root / "warehouse.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE people AS SELECT range AS person_id, 'Ada ' || range AS full_name FROM range(3)"
        )
    (folder.root / "sql" / "people.sql").write_text("SELECT person_id, full_name FROM people\n")
    return External(folder, site)


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {re.sub(r"-.*", "", top) for top in tops} == {"integrations_dagster"}
    sources = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "integrations_dagster").rglob("*.py")}
    assert sources - set(names) == set()
    assert not any("defs.yaml" in name for name in names)


@pytest.mark.slow
def test_plain_loading(external: External) -> None:
    done = external.call(sys.executable, "-c", LOAD)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded["file"].startswith(str(external.site))
    assert loaded["assets"] == ["people", "people_to_hook", "second"]
    assert list(loaded["jobs"].values()) == [["people", "people_to_hook", "second"]]
    assert loaded["schedules"] == ["*/15 * * * *"]


class Receiver(http.server.ThreadingHTTPServer):
    """Records the bodies that it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict[str, object]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_run_delivers(external: External, receiver: Receiver, tmp_path: Path) -> None:
    settings = {
        "INTEGRATIONS_TARGET": "prod",
        "INTEGRATIONS_STORAGE": str(tmp_path / "storage"),
        "HOOK_URL": f"http://127.0.0.1:{receiver.server_port}/in",
        "HOOK_SECRET": "whsec_c2VjcmV0LXNlY3JldA==",
    }
    done = external.call(sys.executable, "-c", RUN, **settings)
    assert done.returncode == 0, done.stderr
    got = {(body["sync"], row["key"]): row["record"] for body in receiver.bodies for row in body["rows"]}  # type: ignore[attr-defined]
    assert got == {
        (sync, str(key)): {"name": f"Ada {key}", "source": "warehouse"}
        for sync in ("people_to_hook", "second")
        for key in range(3)
    }
    receiver.bodies.clear()
    done = external.call(sys.executable, "-c", RUN, **settings)
    assert done.returncode == 0, done.stderr
    assert receiver.bodies == []


@pytest.mark.slow
def test_dg_lists_the_components(external: External) -> None:
    done = external.dg("list", "components", "--json")
    assert done.returncode == 0, done.stderr
    (components,) = json.loads(done.stdout[done.stdout.index("{") :]).values()
    found = {item["key"] for item in components}
    assert {f"integrations_dagster.{name}" for name in ("Destination", "Model", "Sync", "Warehouse")} <= found


@pytest.mark.slow
def test_dg_checks_yaml(external: External) -> None:
    done = external.dg("check", "yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    file = external.folder.write("second", SECOND.replace("mirror", "mirro") + "  batch:\n    rowz: 1\n")
    done = external.dg("check", "yaml", "external/defs/second")
    assert done.returncode == 1
    assert f"{file}:7 - integrations_dagster.Sync attributes.mode" in done.stdout
    assert f"{file}:13 - integrations_dagster.Sync attributes.batch.rowz" in done.stdout


@pytest.mark.slow
def test_dg_checks_definitions(external: External) -> None:
    done = external.dg("check", "defs")
    assert done.returncode == 0, done.stdout + done.stderr
    external.folder.write("second", SECOND.replace("model: people", "model: poeple"))
    done = external.dg("check", "defs")
    assert done.returncode == 1
    assert 'external/defs/second/defs.yaml:4: sync "second": model "poeple"' in done.stdout + done.stderr


@pytest.mark.slow
def test_dg_scaffolds(external: External) -> None:
    done = external.dg("scaffold", "defs", "integrations_dagster.Sync", "third")
    assert done.returncode == 0, done.stdout + done.stderr
    file = external.folder.defs / "third" / "defs.yaml"
    text = file.read_text()
    assert text.startswith("type: integrations_dagster.Sync\n")
    ours = text.replace("model: my_model", "model: people").replace("destination: my_crm", "destination: hook")
    file.write_text(re.sub(r"(?m)^ *match: .*\n", "", ours))
    done = external.call(sys.executable, "-c", LOAD)
    assert done.returncode == 0, done.stderr
    assert "third" in json.loads(done.stdout.splitlines()[-1])["assets"]
