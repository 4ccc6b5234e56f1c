"""How YAML becomes a component: templates are rendered, then all is checked, and a mistake is named with its line.

Dagster checks attributes before it renders `{{ }}` templates, so that a number given by a template fails a check meant
for its value. Here the order is the other way round: what the YAML says is kept as it is, rendered, and then checked
once, against the component class itself. The schema that editors and `dg check yaml` use comes from the same class.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeAlias

import dagster as dg
from dagster.components.core.context import RESOLUTION_CONTEXT_STASH_KEY
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from integrations_dagster.vocabulary import Misconfigured

NotBuilt: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AlsoTakes:
    """Marks a field whose YAML may have a second form, which a validator turns into the first; for the schema only."""

    schema_: JsonSchemaValue

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(core), self.schema_]}

    def __hash__(self) -> int:
        return id(self)


TEXT = AlsoTakes({"type": "string"})
TEMPLATE = AlsoTakes({"type": "string", "pattern": r"\{\{"})
"""The value may be a template: Dagster renders `{{ env.NAME }}` at load."""


def problem(text: str) -> PydanticCustomError:
    """An error whose text is for the reader as it stands."""
    return PydanticCustomError("problem", "{text}", {"text": text})


def mistake(path: Sequence[str | int], text: str) -> ValidationError:
    """A `problem` at a key below the mapping that is checked."""
    return ValidationError.from_exception_data("", [InitErrorDetails(type=problem(text), loc=tuple(path), input=None)])


def near(name: str, known: Iterable[str]) -> str:
    """'Did you mean "x"? ' for a near miss, else ""."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f'Did you mean "{close[0]}"? ' if close else ""


def _share(value: Any) -> Any:
    text = value.strip() if isinstance(value, str) else value
    try:
        share = float(text[:-1]) / 100 if isinstance(text, str) and text.endswith("%") else float(text)
    except (TypeError, ValueError):
        raise problem('takes a share, as "5%" or 0.05') from None
    if isinstance(value, bool) or not 0 <= share <= 1:
        raise problem('takes a share from 0 to 1, as "5%" or 0.05')
    return share


Share = Annotated[float, BeforeValidator(_share), TEXT]
"""A share of rows: "5%" or 0.05."""


class Keys(BaseModel):
    """A mapping in YAML that takes the keys it names and no other."""

    model_config = ConfigDict(extra="forbid")

    not_built: ClassVar[NotBuilt] = {}
    """Keys that are planned: refused with what to use meanwhile, a sentence or ""."""

    @classmethod
    def keys(cls) -> list[str]:
        return [field.alias or name for name, field in cls.model_fields.items()]

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        if isinstance(data, cls):
            return data
        keys = cls.keys()
        if not isinstance(data, Mapping):
            raise problem(f"takes a mapping of the keys {', '.join(keys)}")
        errors = []
        for key in data:
            if key in cls.not_built:
                text = f"is not built yet. {cls.not_built[key]}".strip()
            elif key not in keys:
                text = f"is no key here. {near(str(key), keys)}Known keys: {', '.join(keys)}."
            else:
                continue
            errors.append(InitErrorDetails(type=problem(text), loc=(str(key),), input=None))
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return data


class EnvVar(Keys):
    """A secret or setting that is read from the environment when a run needs it."""

    env: str = Field(description="Name of the environment variable.", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")


def _secret(value: Any) -> Any:
    if not isinstance(value, Mapping | EnvVar):
        raise problem("takes {env: NAME}, the environment variable that holds it: secrets are never written in a file")
    return value


Secret = Annotated[EnvVar, BeforeValidator(_secret)]


class Place:
    """Where a component is written: turns the path of a key into "file:line".

    Args:
        context: Dagster's context of the component, or None for one made in Python.
    """

    def __init__(self, context: dg.ResolutionContext | None = None) -> None:
        self._tree = context.source_position_tree if context else None
        self._path: Sequence[str | int] = tuple(context.path) if context else ()
        loading = context.stash.get(RESOLUTION_CONTEXT_STASH_KEY) if context else None
        self._root: Path | None = loading.project_root if loading else None

    def of(self, *key: str | int) -> str:
        """ "file:line" of a key of the component (of the nearest that exists), or "" where it is unknown."""
        if self._tree is None:
            return ""
        position, _ = self._tree.lookup_closest_and_path([*self._path, *key], None)
        return f"{relative(Path(position.filename), self._root)}:{position.start.line}"


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
            component = cls.model_validate(data)
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
