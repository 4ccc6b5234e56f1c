"""Kinds of destination that other installed distributions offer, by entry points."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from integrations_dagster_tests.components.project import SYNC, ProjectFolder

CRM = """
from integrations_dagster.destinations.webhook import Webhook


class Acme(Webhook):
    kind = "{kind}"
    label = "Acme"
    in_sandbox = False
"""
YAML = """
import sys
from integrations_dagster import Destination
made = Destination.resolve_from_yaml(
    "{name: acme, kind: %s, targets: {prod: {base_url: https://acme.example}}}" % sys.argv[1]
)
spec = made.spec("prod")
print(type(spec.create()).__module__, spec.create().label)
"""
NAMES = """
import sys
from integrations_dagster.destinations.registry import KINDS
print(sorted(KINDS), "acme_kinds" in sys.modules)
"""


class Site:
    """A folder that distributions are installed into, and a fresh Python that sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = folder / "site"

    def install(self, name: str, module: str, source: str, points: dict[str, str], version: str = "1.2") -> None:
        """Build a distribution of one module, and install it."""
        project = self.folder / name
        project.mkdir()
        (project / f"{module}.py").write_text(textwrap.dedent(source))
        entries = "\n".join(f'{kind} = "{value}"' for kind, value in points.items())
        (project / "pyproject.toml").write_text(
            f'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
            f'[project]\nname = "{name}"\nversion = "{version}"\n'
            f'[project.entry-points."integrations_dagster.destinations"]\n{entries}\n'
            f'[tool.setuptools]\npy-modules = ["{module}"]\n'
        )
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
        done = subprocess.run(
            [*pip, "--no-build-isolation", "--target", str(self.target), str(project)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def place(self, name: str, module: str, source: str, points: dict[str, str]) -> None:
        """What an installer leaves of a distribution, without the time that it takes."""
        self.target.mkdir(exist_ok=True)
        (self.target / f"{module}.py").write_text(textwrap.dedent(source))
        info = self.target / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        entries = "\n".join(f"{kind} = {value}" for kind, value in points.items())
        (info / "entry_points.txt").write_text(f"[integrations_dagster.destinations]\n{entries}\n")

    def python(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(self.target), str(Path(__file__).parents[2])])},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_an_installed_distribution_brings_a_kind(site: Site) -> None:
    pytest.importorskip("setuptools", reason="building a distribution without an index needs setuptools")
    site.install("acme-kinds", "acme_kinds", CRM.format(kind="acme"), {"acme": "acme_kinds:Acme"})
    done = site.python(NAMES)
    assert done.returncode == 0, done.stderr
    # It has a name before anything of it is imported.
    assert "'acme'" in done.stdout
    assert done.stdout.strip().endswith("False")
    done = site.python(YAML, "acme")
    assert done.stdout.strip() == "acme_kinds Acme", done.stderr
    done = site.python(YAML, "acmee")
    assert 'Did you mean "acme"?' in done.stderr


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("source", "point", "told"),
    [
        ("import nowhere_to_be_found", "acme_kinds:Acme", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        (CRM.format(kind="acme"), "acme_kinds:Acmee", "has no attribute 'Acmee'"),
        (
            "Acme = 3",
            "acme_kinds:Acme",
            "is no complete subclass of integrations_dagster.destinations.base.Destination",
        ),
        (CRM.format(kind="other"), "acme_kinds:Acme", "calls itself 'other'"),
    ],
    ids=["import", "attribute", "no-destination", "name"],
)
def test_what_is_wrong_with_it_is_said_where_it_is_used(site: Site, source: str, point: str, told: str) -> None:
    site.place("acme-kinds", "acme_kinds", source, {"acme": point})
    done = site.python(YAML, "acme")
    assert done.returncode != 0
    assert told in done.stderr
    assert f"acme-kinds 1.2 ({point})" in done.stderr


@pytest.mark.slow
def test_a_broken_kind_leaves_the_others_alone(site: Site) -> None:
    site.place("acme-kinds", "acme_kinds", "import nowhere_to_be_found", {"acme": "acme_kinds:Acme"})
    done = site.python(YAML, "webhook")
    assert done.stdout.strip() == "integrations_dagster.destinations.webhook Webhook", done.stderr


@pytest.mark.slow
def test_a_name_has_one_kind(site: Site) -> None:
    site.place("acme-kinds", "acme_kinds", CRM.format(kind="hubspot"), {"hubspot": "acme_kinds:Acme"})
    site.place("one-kind", "one_kind", CRM.format(kind="two"), {"two": "one_kind:Acme"})
    site.place("two-kind", "two_kind", CRM.format(kind="two"), {"two": "two_kind:Acme"})
    done = site.python(YAML, "hubspot")
    assert "is built in, and acme-kinds 1.2 (acme_kinds:Acme) offers it too" in done.stderr
    done = site.python(YAML, "two")
    assert "is offered by" in done.stderr
    assert "one-kind 1.2" in done.stderr
    assert "two-kind 1.2" in done.stderr


LOAD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from integrations_dagster.components.load import load_project
loaded = load_project(Path(sys.argv[1]))
print([sync.name for sync in loaded.specs])
print(loaded.broken)
"""


def test_a_defect_of_a_kind_breaks_the_syncs_that_use_it_only(site: Site, tmp_path: Path) -> None:
    defect = "\n    def check(self, *_arguments: object) -> None:\n        [].pop()\n"
    site.place("acme-kinds", "acme_kinds", CRM.format(kind="acme") + defect, {"acme": "acme_kinds:Acme"})
    project = ProjectFolder(tmp_path / "project")
    project.write(
        "acme",
        "type: integrations_dagster.Destination\nattributes: {name: book, kind: acme, targets: {sandbox: {base_url: http://127.0.0.1:9}}}\n",
    )
    project.write("to_acme", SYNC.replace("people_to_hook", "to_acme").replace(": hook", ": book"))
    done = site.python(LOAD, str(project.root))
    assert done.returncode == 0, done.stderr
    sound, broken = done.stdout.splitlines()
    assert sound == "['people_to_hook']"
    assert "to_acme" in broken
    assert "pop from empty list" in broken
