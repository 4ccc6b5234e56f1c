"""What is left to be filled in of a scaffolded subject, so that its tests say it instead of failing somehow."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from integrations_dagster.testing.subject import Subject

F = TypeVar("F", bound=Callable[..., Any])


class ToDo:
    """Stands for a value that nobody has given yet; as a decorator it marks a method that nobody has written.

    Args:
        what: What to do, as a sentence.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, method: F) -> F:
        vars(method)["to_do"] = self
        return method


def to_do(what: str) -> Any:
    """See `ToDo`; of any type, since it stands for one."""
    return ToDo(what)


def unfilled(subject: Subject) -> list[str]:
    """What is left to do, as "name: sentence", in the order of names."""
    found = []
    for name in dir(type(subject)):
        value = inspect.getattr_static(subject, name, None)
        mark = value if isinstance(value, ToDo) else getattr(value, "to_do", None)
        if isinstance(mark, ToDo):
            found.append(f"{name}: {mark.what}")
    return found


def described(path: Path) -> tuple[str, Any]:
    """The kind of the first destination that a defs.yaml describes, and what it says under the kind's own key.

    Raises:
        ValueError: It describes none.
    """
    import yaml

    for document in yaml.safe_load_all(path.read_text("utf-8")):
        if isinstance(document, dict) and str(document.get("type", "")).endswith(".Destination"):
            attributes = document.get("attributes") or {}
            return attributes.get("kind", ""), attributes.get("api", attributes.get("files"))
    raise ValueError(f"{path} describes no destination.")
