"""`Destination` in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Optional, Union
from urllib.parse import urlsplit

import dagster as dg
from pydantic import BeforeValidator, Field, SkipValidation, ValidationInfo, field_validator, model_validator

from integrations_dagster.components.attributes import YamlComponent
from integrations_dagster.components.auth import read_auth, schema
from integrations_dagster.components.scaffold import DestinationScaffolder
from integrations_dagster.delivery.auth.kinds import KINDS as AUTH_KINDS
from integrations_dagster.destinations.registry import KINDS, forms
from integrations_dagster.keys import TEMPLATE, TEXT, Duration, EnvVar, Keys, Secret, mistake, near, problem
from integrations_dagster.sync.spec import DestinationSpec, Env, TargetSpec
from integrations_dagster.vocabulary import Misconfigured

SANDBOX = "sandbox"
KINDS_PLANNED = ("intercom", "klaviyo", "marketo", "mixpanel", "sftp")
ALIASES = {
    **dict.fromkeys(("postgres", "postgresql", "duckdb", "database", "table"), "sql"),
    **dict.fromkeys(("s3", "gcs", "azure", "files", "csv", "parquet", "jsonl"), "file"),
    **dict.fromkeys(("rest", "api", "https", "json"), "http"),
    **dict.fromkeys(("json-rpc", "json_rpc", "odoo", "tryton"), "jsonrpc"),
    **dict.fromkeys(("xml-rpc", "xml_rpc"), "xmlrpc"),
    **dict.fromkeys(("wsdl", "zeep"), "soap"),
    "sfdc": "salesforce",
}
"""What people may write for a kind that has another name."""
IN_FLIGHT_LIMIT = 256
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _kind(value: Any) -> Any:
    if value in KINDS_PLANNED and value not in KINDS:
        raise problem(f'"{value}" is not built yet. Built: {", ".join(sorted(KINDS))}.')
    if not isinstance(value, str) or value not in KINDS:
        meant = f'It is called "{ALIASES[value]}" here. ' if str(value) in ALIASES else near(str(value), KINDS)
        raise problem(f'"{value}" is no kind of destination. {meant}Known: {", ".join(sorted(KINDS))}.')
    try:
        # A kind of another distribution is imported here for the first time.
        KINDS[value]
    except Misconfigured as error:
        raise problem(str(error)) from None
    return value


def _base_url(value: Any) -> Any:
    if isinstance(value, Mapping | EnvVar):
        return EnvVar.model_validate(value)
    parts = urlsplit(value) if isinstance(value, str) else None
    # Which schemes a kind takes is checked with the kind.
    if parts is None or not parts.scheme or (parts.scheme in {"http", "https"} and not parts.hostname):
        folder = " A folder is file:///folder." if isinstance(value, str) and value[:1] in ("/", ".", "~") else ""
        raise problem(f"takes a URL, as https://api.example.com, or {{env: NAME}}.{folder}")
    if parts.username or parts.password or parts.query:
        raise problem("holds a user, password or query, which may be a secret: give the URL as {env: NAME}")
    return value


class Target(Keys):
    """One account of a destination."""

    sandbox: Annotated[bool, TEMPLATE] = Field(
        default=False, description="The local sandbox: its address and secrets are its own."
    )
    base_url: Annotated[Any, BeforeValidator(_base_url)] = Field(
        default=None,
        description="Base URL of the API, as text or {env: NAME}.",
        json_schema_extra={"anyOf": [{"type": "string"}, EnvVar.model_json_schema()]},
    )
    token: Secret | None = Field(
        default=None, description="Bearer token, as {env: NAME}; the short form of auth with kind bearer."
    )
    auth: Annotated[Any, BeforeValidator(read_auth)] = Field(
        default=None,
        description=f"How requests are authenticated: a kind ({', '.join(AUTH_KINDS)}) and what it takes.",
        json_schema_extra={"anyOf": schema()},
    )
    secret: Secret | None = Field(default=None, description="Secret that signs requests, as {env: NAME}.")
    schedules: Annotated[bool, TEMPLATE] = Field(
        default=False, description="Whether the schedules of its syncs start running by default."
    )

    @model_validator(mode="after")
    def _sandbox_alone(self) -> Target:
        given = [key for key in ("base_url", "token", "auth", "secret") if getattr(self, key) is not None]
        if self.sandbox and given:
            raise problem(f"is the sandbox, which has its own {' and '.join(given)}. Leave that out.")
        if self.token is not None and self.auth is not None:
            raise problem("has both token and auth. token is the short form of auth with kind bearer: leave one out.")
        return self


class QuotaKeys(Keys):
    """So many requests in any window of a length."""

    requests: Annotated[int, TEMPLATE] = Field(ge=1, description="Requests in the window.")
    per: Duration = Field(gt=0, description='Length of the window, as "10s" or "1d".')


class RetryKeys(Keys):
    """How long a request that meets an outage is tried."""

    attempts: Annotated[int, TEMPLATE] = Field(
        default=5, ge=1, le=100, description="Attempts at a request that meets an outage."
    )
    base: Duration = Field(
        default=0.5, gt=0, description="Before the first retry, in seconds; doubled, with jitter, for each further one."
    )
    cap: Duration = Field(default=15.0, gt=0, description="Between two attempts at the most, in seconds.")

    @model_validator(mode="after")
    def _grows(self) -> RetryKeys:
        if self.cap < self.base:
            raise problem(f"has a cap ({self.cap:g} s) below base ({self.base:g} s)")
        return self


class RequestLogKeys(Keys):
    """What is kept of requests and answers."""

    days: Annotated[float, TEXT] = Field(
        default=14.0, ge=0, le=3650, description="Days for which request logs are kept."
    )
    bodies: Literal["failed", "all", "none"] = Field(
        default="failed",
        description="Which bodies are kept, scrubbed: of requests that failed or had a row rejected, and the first few "
        "(failed), of all, or of none.",
    )


def _on_this_machine(target: Target) -> bool:
    """Whether a target's address is written down, and no other machine's."""
    return isinstance(target.base_url, str) and urlsplit(target.base_url).hostname in LOOPBACK


def _sandbox_only() -> dict[str, Target]:
    return {SANDBOX: Target(sandbox=True)}


def _option(key: str) -> Any:
    """The forms that a key takes, for the schema; which of them is the kind's is checked by `_read_option`."""
    found = forms(key)
    return SkipValidation[Optional[Union[tuple(found)]]] if found else Any  # type: ignore[misc]  # noqa: UP007, UP045


@dg.scaffold_with(DestinationScaffolder)
class Destination(YamlComponent):
    """An API that syncs deliver to, with its accounts: one for each target."""

    word: ClassVar[str] = "destination"
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

    quota: list[QuotaKeys] | None = Field(
        default=None,
        description="Quotas of the account that hold together, instead of the kind's own; [] for none.",
    )
    concurrency: Annotated[int, TEMPLATE] | None = Field(
        default=None,
        ge=1,
        description="Requests in flight at once over all syncs, runs and processes that use the account; "
        "default: what the kind says, if anything.",
    )
    retry: RetryKeys = Field(default_factory=RetryKeys, description="How long a request that meets an outage is tried.")
    request_log: RequestLogKeys = Field(
        default_factory=RequestLogKeys, description="What is kept of requests and answers."
    )

    fields_cache: Duration = Field(
        default=0.0,
        description="How long what the destination says of an object's fields is used before a run that has something "
        'to send asks anew, as "1h"; default: each such run asks once.',
    )

    if TYPE_CHECKING:
        api: Any = None
        files: Any = None
        tables: Any = None
    else:
        api: _option("api") = Field(
            default=None, validate_default=True, description="How the API is spoken, for the kinds that ask for it."
        )
        tables: _option("tables") = Field(
            default=None, validate_default=True, description="How tables are written, for the kinds that write tables."
        )
        files: _option("files") = Field(
            default=None, validate_default=True, description="What the files are like, for the kinds that write files."
        )

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            description="An API that syncs deliver to, its accounts, and the reference data that syncs look up there.",
            tags=["integrations", "destination"],
            produces=["asset"],
        )

    @field_validator("api", "files", "tables", mode="before")
    @classmethod
    def _read_option(cls, value: Any, info: ValidationInfo) -> Any:
        kind = KINDS.get(info.data.get("kind", ""))
        if kind is None:
            return None  # the mistake is in `kind`
        key, form = kind.options or ("", Keys)
        if key != info.field_name:
            if value is not None:
                raise problem(f"is nothing that {kind.label} takes. Leave it out.")
            return None
        if isinstance(value, form):
            return value
        # The form may call the destination by its name.
        root = (info.context or {}).get("project") or Path.cwd()
        known = {"destination": info.data.get("name", ""), "read": lambda path: (root / path).read_bytes()}
        return form.model_validate({} if value is None else value, context=known)

    @field_validator("targets")
    @classmethod
    def _sandbox_is_one(cls, targets: dict[str, Target], info: ValidationInfo) -> dict[str, Target]:
        # The default target must never be a real account.
        sandbox = targets.get(SANDBOX)
        kind = KINDS.get(info.data.get("kind", ""))
        if sandbox is None or sandbox.sandbox or kind is None:
            return targets
        if kind.in_sandbox:
            raise mistake(
                (SANDBOX,), "is the default target and must be the sandbox. Write `sandbox: {sandbox: true}`."
            )
        if sandbox.base_url is not None and not _on_this_machine(sandbox):
            raise mistake(
                (SANDBOX,),
                "is the default target and must be a server on this machine: a base_url with localhost, 127.0.0.1 or "
                "[::1]. Give the real account another name, as prod.",
            )
        return targets

    @model_validator(mode="after")
    def _targets_fit_kind(self) -> Destination:
        kind = KINDS[self.kind]
        takes = {"token"} if kind.auth == "bearer" else set()
        takes |= kind.settings & {"secret"}
        for name, target in self.targets.items():
            if target.sandbox and not kind.in_sandbox:
                raise mistake(
                    ("targets", name),
                    f"is the sandbox, which does not stand in for {kind.label}. Give a `base_url`; that of the target "
                    "`sandbox` must be on this machine.",
                )
            if target.sandbox:
                continue
            if isinstance(target.base_url, str) and urlsplit(target.base_url).scheme not in kind.schemes:
                known = " or ".join(f"{scheme}://" for scheme in sorted(kind.schemes))
                raise mistake(("targets", name, "base_url"), f"takes a URL that begins with {known}, or {{env: NAME}}")
            if kind.sandbox_only:
                raise mistake(
                    ("targets", name),
                    f"is a real account, and {kind.label} exists in the sandbox only. Write "
                    f"`{name}: {{sandbox: true}}`.",
                )
            if target.secret is not None and "secret" not in kind.settings:
                raise mistake(("targets", name, "secret"), f"is nothing that {kind.label} takes. Leave it out.")
            used = "bearer" if target.token is not None else target.auth.kind if target.auth is not None else None
            if used is not None and kind.auth_kinds is not None and used not in kind.auth_kinds:
                key = "token" if target.token is not None else "auth"
                raise mistake(
                    ("targets", name, key),
                    f"is of kind {used}, which {kind.label} does not take. It takes: "
                    f"{', '.join(sorted(kind.auth_kinds))}.",
                )
            if target.auth is not None and "token_in" in target.auth.settings and not kind.carries_token:
                raise mistake(
                    ("targets", name, "auth", "token_in"),
                    f"is nothing for {kind.label}, whose bodies have no place for a token. Leave it out.",
                )
            missing = ["base_url"] if target.base_url is None else []
            if kind.auth == "bearer" and used is None:
                missing.append("token (or auth)")
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
                auth=account.auth,
                schedules=account.schedules,
            ),
            timeout=self.timeout,
            in_flight=self.in_flight,
            quotas=None if self.quota is None else tuple((quota.requests, quota.per) for quota in self.quota),
            concurrency=self.concurrency,
            attempts=self.retry.attempts,
            backoff=self.retry.base,
            backoff_cap=self.retry.cap,
            log_days=self.request_log.days,
            log_bodies=self.request_log.bodies,
            fields_cache=self.fields_cache,
            option=next((given for given in (self.api, self.files, self.tables) if given is not None), None),
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from integrations_dagster.components.names import Names

        names = Names.of(context.component_tree)
        names.check(self)
        references = names.references_of(self)
        if not references:
            return dg.Definitions()
        from integrations_dagster.components.names import target_in_force
        from integrations_dagster.orchestration.lookups import lookup_asset

        spec = self.spec(target_in_force())
        return dg.Definitions(assets=[lookup_asset(spec, name, columns) for name, columns in references.items()])
