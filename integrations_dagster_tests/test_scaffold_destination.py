"""`integrations scaffold destination`: what it writes fails with what is to be done, and passes once that is done."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from integrations_dagster.cli.scaffold import destination
from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster_tests.components.project import ProjectFolder

REPOSITORY = Path(__file__).parents[1]
PROJECT = '[project]\nname = "external"\nversion = "1"\n\n'

FILLED = '''
from integrations_dagster_tests.testing.notes import TOKEN, NotesSubject


class Acme{base}(NotesSubject):
    """Acme, at the test server."""

    destination = KIND
    option = OPTION
    token = TOKEN
    {match}

    def __init__(self) -> None:
        super().__init__(KIND)
        {more}


TestAcme = conformance_tests(AcmeSubject())
'''
"""The subject of a scaffolded test, filled in: its server and rows are those of the suite's own tests."""


SLUG = """match = ("slug",)

    def good(self, key: str, version: int) -> dict[str, object]:
        return {"slug": key, **super().good(key, version)}
"""


@pytest.fixture
def project(tmp_path: Path) -> ProjectFolder:
    folder = ProjectFolder(tmp_path, {}, package="external")
    file = tmp_path / "pyproject.toml"
    file.write_text(PROJECT + file.read_text())
    return folder


def run(project: ProjectFolder, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("INTEGRATIONS_", "PYTEST"))}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project.root,
        env={**kept, "PYTHONPATH": os.pathsep.join([str(project.root), str(REPOSITORY)]), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def pytest_of(project: ProjectFolder, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(project, "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(project.root), *arguments, "tests")


def fill(project: ProjectFolder, match: str = "", more: str = "pass") -> None:
    """What a person does: a subject in place of the to-dos."""
    file = project.root / "tests" / "test_acme.py"
    text = file.read_text()
    begin = text.index("class AcmeSubject")
    file.write_text(text[:begin] + FILLED.format(base="Subject", match=match, more=more).lstrip("\n"))


# The same by another way; that a class conforms, the documentation's example shows each time.
@pytest.mark.slow
def test_a_class_says_what_is_left_to_do_and_then_conforms(project: ProjectFolder) -> None:
    done = run(project, "integrations_dagster.cli", "scaffold", "destination", "acme", "--python")
    assert done.returncode == 0, done.stderr
    assert "external/destinations/acme.py: written." in done.stdout
    points = (project.root / "pyproject.toml").read_text()
    assert (
        '[project.entry-points."integrations_dagster.destinations"]\nacme = "external.destinations.acme:Acme"' in points
    )
    done = pytest_of(project)
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    assert "AcmeSubject cannot be tested yet. To do:" in done.stdout
    for name in ("object", "match", "text", "serve", "reset", "records", "good", "bad"):
        assert re.search(rf"^- {name}: .+\.$", done.stdout, re.MULTILINE), name
    # The API that the scaffold is written for is that of the suite's own tests; here it can do one thing only.
    file = project.root / "external" / "destinations" / "acme.py"
    file.write_text(re.sub(r"frozenset\(\{Mode\.INSERT.*\}\)", "frozenset({Mode.UPSERT})", file.read_text()))
    fill(project)
    done = pytest_of(project)
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 15
    assert "failed" not in done.stdout


def test_yaml_says_what_is_left_to_do(project: ProjectFolder) -> None:
    done = run(project, "integrations_dagster.cli", "scaffold", "destination", "acme")
    assert done.returncode == 0, done.stderr
    assert "external/defs/acme/defs.yaml: written." in done.stdout
    done = pytest_of(project)
    assert done.returncode == 1
    assert "- object: The object, as the API calls it." in done.stdout


@pytest.mark.slow
def test_yaml_with_what_was_left_to_do_conforms(project: ProjectFolder) -> None:
    assert run(project, "integrations_dagster.cli", "scaffold", "destination", "acme").returncode == 0
    file = project.defs / "acme" / "defs.yaml"
    text = file.read_text().replace("records:", "notes:").replace("POST /records", "POST /notes")
    file.write_text(text.replace("external_id", "slug").replace("rows: 100", "rows: 20").replace("1000000", "30000"))
    fill(project, match=SLUG)
    done = pytest_of(project)
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 15


def test_what_cannot_be_scaffolded_is_said(project: ProjectFolder) -> None:
    root = project.root
    for name in ("Acme", "class", "a-b", ""):
        with pytest.raises(Misconfigured, match="cannot be the name"):
            destination(root, name, Path("tests"), python=True)
    destination(root, "acme", Path("tests"), python=True)
    before = (root / "tests" / "test_acme.py").read_text()
    with pytest.raises(Misconfigured, match=r"test_acme\.py: there already"):
        destination(root, "acme", Path("tests"), python=False)
    assert (root / "tests" / "test_acme.py").read_text() == before
    # A further one is not squeezed into a table that somebody else may have written.
    told = destination(root, "other", Path("tests"), python=True)
    assert any('other = "external.destinations.other:Other"' in text and "To do" in text for text in told)
    (root / "pyproject.toml").write_text("")
    with pytest.raises(Misconfigured, match="names no package"):
        destination(root, "more", Path("tests"), python=True)
