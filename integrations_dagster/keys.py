"""What a mapping in YAML may say: the keys it names and no other, with mistakes that name their key.

A leaf, so that a destination can say what its own settings are (`Destination.options`).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

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


UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")


def parse_duration(text: str) -> float | None:
    """Seconds that a text says ("90", "15m", "24h", "3d"), or None if it is no duration."""
    found = _TEXT.fullmatch(text.strip())
    return float(found[1]) * UNITS[found[2] or "s"] if found else None


def _duration(value: Any) -> Any:
    seconds: float | None = None
    if isinstance(value, str):
        seconds = parse_duration(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    if seconds is None or seconds < 0 or not math.isfinite(seconds):
        raise problem('takes seconds, or a number with a unit, as "30s", "15m", "24h" or "3d"')
    return seconds


Duration = Annotated[float, BeforeValidator(_duration), TEXT]
"""A length of time: 900 or "15m"; seconds as a value."""
