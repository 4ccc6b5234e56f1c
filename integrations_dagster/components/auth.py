"""`auth` of a target: what YAML may say of each kind of authentication."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails

from integrations_dagster.delivery.auth.kinds import KINDS, Kind, Setting
from integrations_dagster.keys import EnvVar, near, problem
from integrations_dagster.sync.spec import AuthSpec, Env

EXAMPLE = "{kind: basic, username: NAME, password: {env: NAME}}"
_ENV: TypeAdapter[EnvVar] = TypeAdapter(EnvVar)


def read_auth(value: Any) -> AuthSpec:
    """Read `auth`.

    Raises:
        PydanticCustomError, ValidationError: What is wrong, at its key. No value that may be a secret is repeated.
    """
    if isinstance(value, AuthSpec):
        return value
    if not isinstance(value, Mapping) or "kind" not in value:
        raise problem(f"takes a mapping with a kind, as {EXAMPLE}. Kinds: {', '.join(KINDS)}.")
    kind = KINDS.get(value["kind"]) if isinstance(value["kind"], str) else None
    if kind is None:
        raise _mistakes(
            ("kind", f"is no kind of authentication. {near(str(value['kind']), KINDS)}Known: {', '.join(KINDS)}.")
        )
    settings, mistakes = _settings(kind, {name: item for name, item in value.items() if name != "kind"})
    given = {name: item if isinstance(item, str) else None for name, item in settings.items()}
    # A mistake in a setting hides that it would be missing otherwise.
    named = {name for name, _ in mistakes}
    mistakes += [(name, f"{what}.") for name, what in kind.wrong(given | dict.fromkeys(named)) if name not in named]
    if mistakes:
        raise _mistakes(*mistakes)
    return AuthSpec(value["kind"], settings)


def schema() -> list[JsonValue]:
    """One JSON schema for each kind, for editors and `dg check yaml`."""
    return [
        {
            "type": "object",
            "description": kind.text,
            "properties": {"kind": {"const": name}, **{key: _schema(s) for key, s in kind.settings.items()}},
            "required": ["kind", *(key for key, setting in kind.settings.items() if setting.required)],
            "additionalProperties": False,
        }
        for name, kind in KINDS.items()
    ]


def _schema(setting: Setting) -> dict[str, Any]:
    env = _ENV.json_schema()
    text: dict[str, Any] = {"type": "string"} | ({"enum": [*setting.choices]} if setting.choices else {})
    return env if setting.secret else {"anyOf": [text, env], "description": setting.text}


def _settings(kind: Kind, given: Mapping[str, Any]) -> tuple[dict[str, str | Env], list[tuple[str, str]]]:
    settings: dict[str, str | Env] = {}
    mistakes: list[tuple[str, str]] = []
    for name, value in given.items():
        setting = kind.settings.get(name)
        if setting is None:
            known = ", ".join(("kind", *kind.settings))
            mistakes.append((str(name), f"is no key here. {near(str(name), kind.settings)}Known keys: {known}."))
        elif isinstance(value, Mapping | EnvVar):
            try:
                settings[name] = Env(_ENV.validate_python(value).env)
            except ValidationError:
                mistakes.append((name, "takes {env: NAME}, the name of an environment variable"))
        elif setting.secret:
            what = "takes {env: NAME}, the environment variable that holds it: secrets are never written in a file"
            mistakes.append((name, what))
        elif isinstance(value, str) and value:
            settings[name] = value
        else:
            mistakes.append((name, "takes text (in quotes, if it looks like something else) or {env: NAME}"))
    return settings, mistakes


def _mistakes(*found: tuple[str, str]) -> ValidationError:
    return ValidationError.from_exception_data(
        "", [InitErrorDetails(type=problem(text), loc=(name,) if name else (), input=None) for name, text in found]
    )
