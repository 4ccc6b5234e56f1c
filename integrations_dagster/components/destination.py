"""`Destination` in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

import dagster as dg
from pydantic import BeforeValidator, Field, field_validator, model_validator

from integrations_dagster.components.attributes import (
    TEMPLATE,
    TEXT,
    EnvVar,
    Keys,
    NotBuilt,
    Secret,
    YamlComponent,
    mistake,
    near,
    problem,
)
from integrations_dagster.components.scaffold import DestinationScaffolder
from integrations_dagster.destinations.registry import KINDS
from integrations_dagster.sync.spec import DestinationSpec, Env, TargetSpec
from integrations_dagster.vocabulary import Misconfigured

SANDBOX = "sandbox"
KINDS_PLANNED = ("intercom", "klaviyo", "marketo", "mixpanel", "postgres", "s3", "salesforce", "sftp")
IN_FLIGHT_LIMIT = 256


def _kind(value: Any) -> Any:
    if value in KINDS_PLANNED and value not in KINDS:
        raise problem(f'"{value}" is not built yet. Built: {", ".join(sorted(KINDS))}.')
    if not isinstance(value, str) or value not in KINDS:
        raise problem(
            f'"{value}" is no kind of destination. {near(str(value), KINDS)}Known: {", ".join(sorted(KINDS))}.'
        )
    return value


def _base_url(value: Any) -> Any:
    if isinstance(value, Mapping | EnvVar):
        return EnvVar.model_validate(value)
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise problem("takes a URL that begins with http:// or https://, or {env: NAME}")
    if parts.username or parts.password or parts.query:
        raise problem("holds a user, password or query, which may be a secret: give the URL as {env: NAME}")
    return value


class Target(Keys):
    """One account of a destination."""

    not_built: ClassVar[NotBuilt] = dict.fromkeys(("oauth", "username", "password"), "Built: token, secret.")

    sandbox: Annotated[bool, TEMPLATE] = Field(
        default=False, description="The local sandbox: its address and secrets are its own."
    )
    base_url: Annotated[Any, BeforeValidator(_base_url)] = Field(
        default=None,
        description="Base URL of the API, as text or {env: NAME}.",
        json_schema_extra={"anyOf": [{"type": "string"}, EnvVar.model_json_schema()]},
    )
    token: Secret | None = Field(default=None, description="Bearer token, as {env: NAME}.")
    secret: Secret | None = Field(default=None, description="Secret that signs requests, as {env: NAME}.")
    schedules: Annotated[bool, TEMPLATE] = Field(
        default=False, description="Whether the schedules of its syncs start running by default."
    )

    @model_validator(mode="after")
    def _sandbox_alone(self) -> Target:
        given = [key for key in ("base_url", "token", "secret") if getattr(self, key) is not None]
        if self.sandbox and given:
            raise problem(f"is the sandbox, which has its own {' and '.join(given)}. Leave that out.")
        return self


def _sandbox_only() -> dict[str, Target]:
    return {SANDBOX: Target(sandbox=True)}


@dg.scaffold_with(DestinationScaffolder)
class Destination(YamlComponent):
    """An API that syncs deliver to, with its accounts: one for each target."""

    word: ClassVar[str] = "destination"
    not_built: ClassVar[NotBuilt] = {"quota": "Built: in_flight."}

    name: str = Field(min_length=1, description="Syncs refer to it by this name.")
    kind: Annotated[str, BeforeValidator(_kind)] = Field(
        description=f"What it is: {', '.join(sorted(KINDS))}.",
        json_schema_extra=lambda schema: schema.update(enum=[*sorted(KINDS)]),
    )
    targets: dict[str, Target] = Field(
        default_factory=_sandbox_only,
        min_length=1,
        description="Accounts by target; INTEGRATIONS_TARGET picks one (default sandbox). State is kept per account.",
    )
    timeout: Annotated[float, TEXT] = Field(
        default=30.0,
        gt=0,
        le=600,
        description="Seconds that a request may take, from first byte sent to last byte read.",
    )
    in_flight: Annotated[int, TEMPLATE] = Field(
        default=16, ge=1, le=IN_FLIGHT_LIMIT, description="Requests in flight at once, over all shards of a run."
    )

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            description="An API that syncs deliver to, and its accounts.", tags=["integrations", "destination"]
        )

    @field_validator("targets")
    @classmethod
    def _sandbox_is_one(cls, targets: dict[str, Target]) -> dict[str, Target]:
        # The default target must never be a real account.
        if SANDBOX in targets and not targets[SANDBOX].sandbox:
            raise mistake(
                (SANDBOX,), "is the default target and must be the sandbox. Write `sandbox: {sandbox: true}`."
            )
        return targets

    @model_validator(mode="after")
    def _targets_fit_kind(self) -> Destination:
        kind = KINDS[self.kind]
        takes = {"token"} if kind.auth == "bearer" else set()
        takes |= kind.settings & {"secret"}
        for name, target in self.targets.items():
            if target.sandbox:
                continue
            for key in ("token", "secret"):
                if getattr(target, key) is not None and key not in takes:
                    raise mistake(("targets", name, key), f"is nothing that {kind.label} takes. Leave it out.")
            missing = [key for key in ("base_url", "token") if getattr(target, key) is None]
            missing = [key for key in missing if key == "base_url" or key in takes]
            if missing:
                raise mistake(("targets", name), f"lacks {' and '.join(missing)}, without which nothing can be sent.")
        return self

    @property
    def identity(self) -> str:
        return self.name

    def spec(self, target: str) -> DestinationSpec:
        """The destination as plain values, for one of its targets.

        Raises:
            Misconfigured: It has no such target.
        """
        if target not in self.targets:
            raise Misconfigured(
                f'{self.label} ({self.place or "made in Python"}) has no target "{target}", which INTEGRATIONS_TARGET '
                "picks.",
                f"{near(target, self.targets)}Add the target there, or set INTEGRATIONS_TARGET to one of: "
                f"{', '.join(self.targets)}.",
            )
        account = self.targets[target]
        return DestinationSpec(
            name=self.name,
            kind=self.kind,
            target=TargetSpec(
                name=target,
                sandbox=account.sandbox,
                base_url=Env(account.base_url.env) if isinstance(account.base_url, EnvVar) else account.base_url,
                token=Env(account.token.env) if account.token else None,
                secret=Env(account.secret.env) if account.secret else None,
                schedules=account.schedules,
            ),
            timeout=self.timeout,
            in_flight=self.in_flight,
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from integrations_dagster.components.names import Names

        Names.of(context.component_tree).check(self)
        return dg.Definitions()
