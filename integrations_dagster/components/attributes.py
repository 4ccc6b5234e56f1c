"""How YAML becomes a component: templates are rendered, then all is checked, and a mistake is named with its line.

Dagster checks attributes before it renders `{{ }}` templates, so that a number given by a template fails a check meant
for its value. Here the order is the other way round: what the YAML says is kept as it is, rendered, and then checked
once, against the component class itself. The schema that editors and `dg check yaml` use comes from the same class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import dagster as dg
from dagster.components.core.context import RESOLUTION_CONTEXT_STASH_KEY
from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from integrations_dagster.keys import Keys
from integrations_dagster.vocabulary import Misconfigured


class Place:
    """Where a component is written: turns the path of a key into "file:line".

    Args:
        context: Dagster's context of the component, or None for one made in Python.
    """

    def __init__(self, context: dg.ResolutionContext | None = None) -> None:
        self._tree = context.source_position_tree if context else None
        self._path: Sequence[str | int] = tuple(context.path) if context else ()
        loading = context.stash.get(RESOLUTION_CONTEXT_STASH_KEY) if context else None
        self.root: Path | None = loading.project_root if loading else None

    def of(self, *key: str | int) -> str:
        """ "file:line" of a key of the component (of the nearest that exists), or "" where it is unknown."""
        if self._tree is None:
            return ""
        position, _ = self._tree.lookup_closest_and_path([*self._path, *key], None)
        return f"{relative(Path(position.filename), self.root)}:{position.start.line}"


def relative(path: Path, root: Path | None) -> str:
    """The path as seen from the project's root, where it is inside."""
    return path.relative_to(root).as_posix() if root and path.is_relative_to(root) else str(path)


@cache
def _attributes(component: type[YamlComponent]) -> type[BaseModel]:
    class Attributes(BaseModel):
        """What the YAML says, neither rendered nor checked: all of it is `model_extra`."""

        model_config = ConfigDict(extra="allow")

        @model_validator(mode="wrap")
        @classmethod
        def _keep(cls, value: Any, handler: Any) -> Self:  # noqa: ARG003 - pydantic's signature
            return cls.model_construct(**{str(key): item for key, item in value.items()})

        @classmethod
        def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return component.model_json_schema(*args, **kwargs)

    Attributes.__name__ = Attributes.__qualname__ = f"{component.__name__}Attributes"
    return Attributes


class YamlComponent(Keys, dg.Component, dg.Model, dg.Resolvable):
    """Root of the components of this package."""

    word: ClassVar[str]
    """What messages call it: "sync", "model", ..."""

    _place: Place = PrivateAttr(default_factory=Place)

    @classmethod
    def model(cls) -> type[BaseModel]:
        return _attributes(cls)

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        # Without attributes Dagster would call the class with nothing and lose the line.
        return super().load(attributes or _attributes(cls).model_validate({}), context)

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> Self:
        place = Place(context)
        data = _render(context, model.model_extra or {})
        try:
            # Some settings name files of the project.
            component = cls.model_validate(data, context={"project": place.root})
        except ValidationError as error:
            # Not chained: pydantic's own text repeats the input, which may hold a secret.
            raise _misconfigured(cls.word, data, error, place) from None
        component._place = place
        return component

    @property
    def label(self) -> str:
        """The component as messages call it: 'sync "crm_contacts"'."""
        return f'{self.word} "{self.identity}"'

    @property
    def identity(self) -> str:
        """The name by which other components know it."""
        raise NotImplementedError

    @property
    def place(self) -> str:
        """ "file:line" of the component's name, or ""."""
        return self._place.of("name")

    def error(self, key: str | tuple[str | int, ...], what: str, remedy: str = "") -> Misconfigured:
        """A mistake in this component, named by place, component and key."""
        path = (key,) if isinstance(key, str) else key
        return Misconfigured(_sentence(self._place.of(*path or ("name",)), self.label, path, what), remedy)


def _render(context: dg.ResolutionContext, value: Any) -> Any:
    # Only what has a template is rendered: Dagster's rendering turns every text that looks like Python into its
    # value ("007" stays a text, "7" becomes a number), which would change constants.
    if isinstance(value, Mapping):
        return {key: _render(context.at_path(key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_render(context.at_path(index), item) for index, item in enumerate(value)]
    if isinstance(value, str) and "{{" in value:
        return context.resolve_value(value)
    return value


def _sentence(place: str, label: str, path: Sequence[str | int], what: str) -> str:
    key = ".".join(str(part) for part in path)
    return f"{f'{place}: ' if place else ''}{label}: {f'{key} ' if key else ''}{what}"


def _misconfigured(word: str, data: Mapping[str, Any], error: ValidationError, place: Place) -> Misconfigured:
    name = data.get("name") or data.get("sql")
    label = f'{word} "{name}"' if isinstance(name, str) else word
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        path = item["loc"]
        text = "is missing" if item["type"] == "missing" else item["msg"].removeprefix("Value error, ")
        text = text if item["type"] in {"problem", "missing"} else f"is wrong: {text[0].lower()}{text[1:]}"
        lines.append(_sentence(place.of(*path), label, path, text))
    return Misconfigured("\n".join(lines))
