"""`Sync` in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import dagster as dg
from dagster._utils.schedules import is_valid_cron_schedule
from pydantic import BeforeValidator, Field, model_validator

from integrations_dagster.components.attributes import YamlComponent
from integrations_dagster.components.field_mapping import (
    FieldMapping,
    FieldProblem,
    Nulls,
    check_match,
    check_paths,
    field_mapping,
)
from integrations_dagster.components.guards import (
    DELETION_LIMIT,
    REMOVAL_LIMIT,
    Guards,
    RemovalLimit,
    check_removal_limit,
)
from integrations_dagster.components.lookups import LookupKeys, LookupProblem
from integrations_dagster.components.model import Columns, Model
from integrations_dagster.components.scaffold import SyncScaffolder
from integrations_dagster.components.sync_keys import Alerts, BatchKeys, FailWhen, Rejected, SyncLogKeys
from integrations_dagster.destinations.base import Destination
from integrations_dagster.keys import TEMPLATE, AlsoTakes, Duration, NotBuilt, mistake, near, problem
from integrations_dagster.sync.spec import AlertSpec, DestinationSpec, FieldSpec, LookupSpec, ModelSpec, SyncSpec
from integrations_dagster.vocabulary import Action, Misconfigured, Mode
from integrations_dagster.warehouses.registry import KINDS as WAREHOUSES

if TYPE_CHECKING:
    from integrations_dagster.components.names import Names

SHARDS_LIMIT = 32
ACTIONS = {
    Mode.INSERT: (Action.CREATE,),
    Mode.UPDATE: (Action.MODIFY,),
    Mode.UPSERT: (Action.UPSERT, Action.UPDATE),
    Mode.MIRROR: (Action.UPSERT, Action.UPDATE, Action.DELETE),
    Mode.DELETE: (Action.DELETE,),
    Mode.APPEND: (Action.CREATE,),
}
"""How rows of a mode may be delivered."""
ModeName = Literal["insert", "update", "upsert", "mirror", "delete", "append"]
CHANGES_FOUND = "Write `home`: changes are found where the state is."


def _mode(value: Any) -> Any:
    known = [mode.value for mode in Mode]
    if value in known:
        return str(value)
    raise problem(f'"{value}" is no mode. {near(str(value), known)}Known: {", ".join(known)}.')


def _cron(value: Any) -> Any:
    if not isinstance(value, str) or not is_valid_cron_schedule(value):
        raise problem('is no cron schedule. Write five parts: minute hour day month weekday, as "*/15 * * * *".')
    return value


@dg.scaffold_with(SyncScaffolder)
class Sync(YamlComponent):
    """Delivers the rows of a model to an object of a destination: an asset, its job, and its schedule."""

    word: ClassVar[str] = "sync"
    not_built: ClassVar[NotBuilt] = {
        "cursor": "It is a key of the model.",
        "planner": CHANGES_FOUND,
        "sensitive": "Mark the field: {column: NAME, sensitive: true}.",
    }

    name: str = Field(
        pattern=r"^[A-Za-z0-9_]+$", description="Name of the sync and of its asset; its state hangs on it."
    )
    model_key: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, alias="model", description="Name of the model whose rows are delivered."
    )
    asset: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description='Instead of model: key of an upstream asset, as "raw/customers", yielding a data frame, Arrow data '
        "or the name of a table.",
    )
    primary_key: Columns | None = Field(
        default=None, min_length=1, description="With asset: column, or list of columns, that identifies a row."
    )
    destination: str = Field(min_length=1, description="Name of the destination.")
    object: str = Field(min_length=1, description="What the rows become there, as contacts.")
    mode: Annotated[ModeName, BeforeValidator(_mode)] = Field(
        description="upsert: create and update; mirror: also remove what this sync delivered and the model has no "
        "more; insert: create each row once, and never change it; update: change records that are there, and "
        "create none; delete: delete the records that the model lists; append: deliver each row once, as an event."
    )
    match: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Field by which the destination recognizes a record, to the column that holds it; "
        "default: the primary key.",
    )
    fields: dict[str, Annotated[FieldMapping, BeforeValidator(field_mapping), AlsoTakes({"type": "string"})]] = Field(
        default_factory=dict,
        description="Fields of the destination: a column, {column: NAME}, {value: CONSTANT} or {sql: EXPRESSION} each. "
        "Mode delete takes none.",
    )
    nulls: Nulls | None = Field(
        default=None,
        description="What becomes of nulls in fields that do not say: `omit` leaves the field out, `clear` empties it "
        "at the destination, `default` sends the field's default, if it has one. Default: omit; clear where the "
        "destination is a table or a file.",
    )
    lookups: dict[str, LookupKeys] = Field(
        default_factory=dict,
        description="What fields look values up in, by the name that they use: {owners: {cache: 1h, no_match: null}}.",
    )
    batch: BatchKeys = Field(default_factory=BatchKeys, description="The size of a request.")
    in_doubt: Literal["hold", "verify", "resend"] | None = Field(
        default=None,
        description="What becomes of rows whose request must not be repeated and got no answer. hold: they wait for a "
        "person; verify: they are looked up at the destination; resend: they are sent again, and may be there twice. "
        "Default: verify where the destination can, else hold.",
    )
    rejected: Rejected = Field(default_factory=Rejected, description="How rejected rows are tried again.")
    sync_log: SyncLogKeys = Field(default_factory=SyncLogKeys, description="How long the sync log is kept.")
    keep_values: Annotated[bool, TEMPLATE] = Field(
        default=False,
        description="Keep the last acknowledged values of each record, so that a preview shows old and new; "
        "sensitive fields are not kept.",
    )
    shards: Annotated[int, TEMPLATE] = Field(
        default=4, ge=1, le=SHARDS_LIMIT, description="Write steps that run in parallel, at the most."
    )
    schedule: Annotated[str, BeforeValidator(_cron)] | None = Field(
        default=None, description='When it runs, as cron ("*/15 * * * *"), in UTC.'
    )
    trigger: Literal["model"] | None = Field(
        default=None, description="`model`: runs whenever its model was materialized by something else."
    )
    fail_when: FailWhen = Field(default_factory=FailWhen, description="What fails a run that delivered what it could.")
    alerts: Alerts | None = Field(default=None, description="Who is told.")
    removal_limit: RemovalLimit | None = Field(
        default=None,
        description='mirror: share of the delivered rows, or rows, that one run may remove; default "20%". '
        "delete: rows that one run may delete; default 1000.",
    )
    guards: Guards | None = Field(
        default=None, description="How far from the usual a run's numbers may be before it warns or stops."
    )
    owner: Annotated[bool, TEMPLATE] = Field(
        default=False,
        description="It may write fields that another sync writes too, or mirror an object that another writes.",
    )
    dedupe_window: Duration | None = Field(
        default=None,
        description='append: how long the key of a delivered row is remembered at least, as "30d"; default: for good.',
    )
    home: Literal["embedded", "warehouse"] = Field(
        default="embedded",
        description="Where its state lives and changes are found. embedded: files below the storage folder, a user "
        "that may only read is enough; warehouse: tables of its schema integrations, only what differs leaves it.",
    )
    description: str | None = Field(default=None, description="Shown on the asset.")

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            description="Delivers the rows of a model to an object of a destination.",
            tags=["integrations", "reverse-etl", "sync"],
            produces=["asset", "job", "schedule", "sensor", "asset_check"],
        )

    @model_validator(mode="after")
    def _keys_agree(self) -> Sync:
        self._check_source()
        if wrong := check_removal_limit(self.mode, self.removal_limit):
            raise mistake(("removal_limit",), wrong)
        if self.dedupe_window is not None and self.mode != "append":
            raise mistake(("dedupe_window",), f"has no meaning in mode {self.mode}. Leave it out.")
        if self.guards is not None and self.guards.removed is not None and self.mode != "mirror":
            raise mistake(("guards", "removed"), f"has no meaning: mode {self.mode} removes no rows. Leave it out.")
        if self.mode == "delete" and self.fields:
            raise mistake(("fields",), "have no meaning: mode delete sends no values. Leave them out.")
        if self.mode != "delete" and not self.fields:
            raise mistake(("fields",), "is missing" if "fields" not in self.model_fields_set else "name no field.")
        for target, column in self.match.items():
            for name, other in self.fields.items():
                if other.sensitive and (name == target or other.column == column):
                    raise mistake(
                        ("fields", name, "sensitive"),
                        f"marks what match.{target} is made from. Match values are kept in the state of the sync; "
                        "hashing of match values is not built yet.",
                    )
            field = self.fields.get(target)
            if field is not None and field.column != column:
                raise mistake(
                    ("fields", target), f"differs from match.{target} ({column}). A match value comes from one column."
                )
        return self

    def _check_source(self) -> None:
        if self.asset is not None and self.model_key is not None:
            raise mistake(("asset",), "and model contradict each other: the rows come from one of them.")
        if self.asset is None and self.model_key is None:
            raise mistake(("model",), "is missing. Name a model, or an `asset` and its `primary_key`.")
        if self.asset is not None and self.primary_key is None:
            raise mistake(("primary_key",), "is missing: which column of the asset's rows identifies a row?")
        if self.asset is None and self.primary_key is not None:
            raise mistake(("primary_key",), "belongs to the model. Leave it out.")

    @property
    def identity(self) -> str:
        return self.name

    @property
    def model_name(self) -> str:
        """The name of its model; one that reads its `asset` is named after the sync."""
        return self.model_key or f"{self.name}_rows"

    def own_model(self) -> Model | None:
        """The model that `asset` stands for, if the sync names no model."""
        if self.asset is None:
            return None
        model = Model(asset=self.asset, name=self.model_name, primary_key=self.primary_key or [])
        model._place = self._place
        return model

    @property
    def looked_up(self) -> dict[str, LookupKeys]:
        """Its lookups by name: those of `lookups`, those that stand in fields, and references that fields just name."""
        found = dict(self.lookups)
        for target, field in self.fields.items():
            if field.lookup is not None:
                found.setdefault(field.finds(target), field.lookup)
        return found

    def spec(
        self, model: ModelSpec, destination: DestinationSpec, delivered: Mapping[str, SyncSpec] | None = None
    ) -> SyncSpec:
        """The sync as plain values.

        Args:
            model: The model that `model` names.
            destination: The destination that `destination` names, with the target in force.
            delivered: The syncs that lookups name.

        Raises:
            Misconfigured: The destination cannot do this.
        """
        mode = Mode(self.mode)
        default_limit = DELETION_LIMIT if mode is Mode.DELETE else REMOVAL_LIMIT
        removal_limit = default_limit if self.removal_limit is None else self.removal_limit
        kind = destination.create()
        try:
            kind.check(self.object, mode, tuple(self.match), tuple(self.fields))
        except Misconfigured as error:
            raise self.error((), error.message, error.remedy) from error
        self._check_paths(kind)
        self._check_home(model)
        self._check_batch(kind, mode)
        self._check_in_doubt(kind, mode)
        self._check_sensitive(kind, model)
        if model.cursor is not None and mode in (Mode.MIRROR, Mode.DELETE):
            raise self.error(
                "mode",
                f"is {mode}, and the model {model.name!r} has a cursor: rows that are not queried cannot be told from "
                "rows that are gone.",
                "Use another mode, or a model without `cursor`.",
            )
        nulls: Nulls = self.nulls if self.nulls is not None else kind.nulls
        alerts = AlertSpec(self.alerts.slack, self.alerts.when.rejected_above) if self.alerts else AlertSpec()
        return SyncSpec(
            name=self.name,
            model=model,
            destination=destination,
            object=self.object,
            mode=mode,
            fields=tuple(self._field(target, field, model, nulls) for target, field in self.fields.items()),
            match=self.match,
            batch_rows=self.batch.rows,
            batch_bytes=self.batch.bytes,
            row_bytes=self.batch.row_bytes,
            in_doubt=self.in_doubt,
            max_attempts=self.rejected.max_attempts,
            retry_wait=self.rejected.wait,
            retry_wait_cap=self.rejected.longest_wait,
            shards=self.shards,
            schedule=self.schedule,
            on_model=self.trigger == "model",
            fail_rejected_above=self.fail_when.rejected_above,
            alerts=alerts,
            removal_limit=removal_limit,
            dedupe_window=self.dedupe_window,
            guards=self.guards.spec() if self.guards else None,
            owner=self.owner,
            log_days=self.sync_log.days,
            keep_values=self.keep_values,
            source=self.place,
            lookups=self._lookups(destination, delivered or {}),
            home=self.home,
        )

    def _lookups(self, destination: DestinationSpec, delivered: Mapping[str, SyncSpec]) -> tuple[LookupSpec, ...]:
        used = {field.finds(target): target for target, field in self.fields.items() if field.lookup is not None}
        specs = []
        for name, keys in self.looked_up.items():
            if name not in used:
                raise self.error(
                    ("lookups", name), "is used by no field.", f"Write `{{lookup: {name}, column: NAME}}`."
                )
            try:
                specs.append(keys.spec(name, destination, delivered))
            except LookupProblem as error:
                inside = (error.key,) if error.key else ()
                path = ("lookups", name) if name in self.lookups else ("fields", used[name], "lookup")
                raise self.error((*path, *inside), str(error), error.remedy) from None
        return tuple(specs)

    def _field(self, target: str, field: FieldMapping, model: ModelSpec, nulls: Nulls) -> FieldSpec:
        try:
            if target in self.match:
                check_match(target, field)
            # A match value is never null.
            return field.spec(target, model.warehouse.dialect, "omit" if target in self.match else nulls)
        except FieldProblem as error:
            raise self.error(("fields", target, error.key), str(error)) from None

    def _check_paths(self, kind: Destination) -> None:
        try:
            check_paths(tuple(self.fields), kind)
        except FieldProblem as error:
            raise self.error(("fields", error.key), str(error)) from None

    def _check_home(self, model: ModelSpec) -> None:
        if self.home == "warehouse" and self.keep_values:
            raise self.error(
                "keep_values", "is not built yet for `home: warehouse`.", "Leave it out, or write `home: embedded`."
            )
        kind = WAREHOUSES.get(model.warehouse.kind)
        if self.home == "warehouse" and (kind is None or kind.store is None):
            able = ", ".join(name for name, known in WAREHOUSES.items() if known.store)
            raise self.error(
                "home",
                f'is warehouse, but the warehouse "{model.warehouse.name}" of its model is of the kind '
                f"{model.warehouse.kind}, which keeps no state.",
                f"Write `home: embedded`, or use a warehouse of the kind {able}.",
            )

    def _check_batch(self, kind: Destination, mode: Mode) -> None:
        limits = kind.limits(self.object, ACTIONS[mode][0])
        for key, limit, what in (
            ("rows", limits.rows, "rows in a request"),
            ("bytes", limits.bytes, "bytes in a request"),
            ("row_bytes", limits.row_bytes, "bytes in a row"),
        ):
            asked = getattr(self.batch, key)
            if asked is not None and limit is not None and asked > limit:
                text = f"is {asked}, but {kind.label} takes {limit} {what} at the most."
                raise self.error(("batch", key), text)

    def _check_in_doubt(self, kind: Destination, mode: Mode) -> None:
        if self.in_doubt is None:
            return
        if all(kind.repeat(self.object, action).safe for action in ACTIONS[mode]):
            raise self.error(
                "in_doubt",
                f"has no meaning: in mode {mode}, a request to {kind.label} may be repeated, so that no row is ever in "
                "doubt. Leave it out.",
            )
        if self.in_doubt == "verify" and not kind.can_verify(self.object, tuple(self.match)):
            by = f" by {', '.join(self.match)}" if self.match else " without `match`"
            raise self.error(
                "in_doubt", f"is verify, but {kind.label} cannot look up {self.object}{by}.", "Write hold or resend."
            )

    def _check_sensitive(self, kind: Destination, model: ModelSpec) -> None:
        exposed = [name.split(".") for name in kind.exposes(self.object)]
        for target, field in self.fields.items():
            path = target.split(".")
            # The part of a field, and an object that it lies in.
            if field.sensitive and any(name[: len(path)] == path[: len(name)] for name in exposed):
                raise self.error(
                    ("fields", target, "sensitive"),
                    f"marks a value that the destination's `api` sends by itself ({{record.{target}}}), where logs "
                    "would not recognize it.",
                    "Let the record carry it, or take the mark away.",
                )
            if field.sensitive and field.column in model.primary_key:
                raise self.error(
                    ("fields", target, "sensitive"),
                    f"marks the column {field.column!r}, which is in the primary key: keys are kept in logs and in the "
                    "state of the sync.",
                    "Use another column as the primary key.",
                )

    def build_asset(self, names: Names) -> dg.Definitions:
        """The asset of the sync and its checks (and that of its own model), without job, schedule and sensors."""
        from integrations_dagster.orchestration.models import model_asset
        from integrations_dagster.orchestration.syncs import sync_asset

        spec = names.sync_spec(self)
        asset = sync_asset(spec, names.partitions_def(spec.model.name))
        assets = [asset] if self.asset is None else [model_asset(spec.model, None), asset]
        if self.description:
            description = self.description
            assets[-1] = asset.map_asset_specs(lambda s: s.replace_attributes(description=description))
        return dg.Definitions(assets=assets)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from integrations_dagster.components.names import Names, shared_definitions

        names = Names.of(context.component_tree)
        names.check(self)
        asset = self.build_asset(names)
        # Syncs with one model and schedule share a job, so jobs belong to the project: its first sync brings them.
        if names.shares_jobs and names.syncs[0] is self:
            return dg.Definitions.merge(asset, shared_definitions(names.sync_specs(), names.partitions()))
        return asset
