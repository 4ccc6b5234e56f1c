"""`integrations scaffold destination`: a destination to be filled in, and its conformance test."""

from __future__ import annotations

import keyword
import re
import tomllib
from pathlib import Path
from typing import Any

from integrations_dagster.cli import scaffold_texts as texts
from integrations_dagster.vocabulary import Misconfigured

ENTRY_POINTS = "integrations_dagster.destinations"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def destination(root: Path, name: str, tests: Path, *, python: bool) -> list[str]:
    """Write a destination and its test.

    Args:
        root: The project's root.
        name: The destination's name.
        tests: Folder of tests, below the root.
        python: Whether it is a class rather than YAML.

    Returns:
        What was written and what is to be done, a sentence each.

    Raises:
        Misconfigured: The name is none, the project has no package, or a file is there already.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise Misconfigured(
            f"{name!r} cannot be the name of a destination and of a module.",
            "Take small letters, digits and _, beginning with a letter.",
        )
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    dg: dict[str, Any] = settings.get("tool", {}).get("dg", {}).get("project", {})
    package = dg.get("root_module", "")
    if not package:
        raise Misconfigured(
            f"{root / 'pyproject.toml'} names no package ([tool.dg.project] root_module).",
            "Name it there; `dg` needs it too.",
        )
    source = root / "src" if (root / "src" / package.replace(".", "/")).is_dir() else root
    words = {
        "name": name,
        "NAME": name.upper(),
        "class": "".join(part.title() for part in name.split("_")),
        "package": package,
    }
    test = root / tests / f"test_{name}.py"
    if python:
        main = source.joinpath(*package.split("."), "destinations", f"{name}.py")
        files = {main: texts.PYTHON, test: texts.PYTHON_TEST + texts.TEST}
    else:
        defs = str(dg.get("defs_module") or f"{package}.defs")
        main = source.joinpath(*defs.split("."), name, "defs.yaml")
        # From the folder of the tests, so that they run wherever the project lies.
        words["yaml"] = main.relative_to(root).as_posix()
        words["up"] = str(len((root / tests).relative_to(root).parts))
        files = {main: texts.YAML, test: texts.YAML_TEST + texts.TEST}
    there = [str(path) for path in files if path.exists()]
    if there:
        raise Misconfigured(f"{' and '.join(there)}: there already.", "Take another name, or delete it first.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(text, words), "utf-8")
    if python:
        (main.parent / "__init__.py").touch()
    told = [f"{path.relative_to(root)}: written." for path in files]
    if python:
        told.append(_registered(root, settings, words))
    told.append(f"Next: fill in what {test.relative_to(root)} asks for, and run it with pytest.")
    return told


def _filled(text: str, words: dict[str, str]) -> str:
    # Not `str.format`: the texts are full of braces.
    for word, value in words.items():
        text = text.replace(f"<<{word}>>", value)
    return text


def _registered(root: Path, settings: dict[str, Any], words: dict[str, str]) -> str:
    """Let the project offer its kind, where that can be said without touching what others have written."""
    line = _filled('<<name>> = "<<package>>.destinations.<<name>>:<<class>>"', words)
    table = f'[project.entry-points."{ENTRY_POINTS}"]'
    project = settings.get("project")
    if project is None or ENTRY_POINTS in project.get("entry-points", {}):
        return f"To do: add to pyproject.toml, under {table}: {line}"
    path = root / "pyproject.toml"
    path.write_text(f"{path.read_text('utf-8').rstrip()}\n\n{table}\n{line}\n", "utf-8")
    return f"pyproject.toml: offers the kind {words['name']!r}. Install the project again, so that YAML can name it."
