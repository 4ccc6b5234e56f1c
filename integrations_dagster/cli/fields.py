"""What a destination says of its fields, and a mapping proposed from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from integrations_dagster.cli.run import surroundings
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.query import run_query
from integrations_dagster.sync.schema import describe
from integrations_dagster.sync.suggest import as_yaml, propose
from integrations_dagster.sync.versions import folder_of, newest_version
from integrations_dagster.vocabulary import Misconfigured

if TYPE_CHECKING:
    from integrations_dagster.destinations.reading import TargetField
    from integrations_dagster.sync.spec import DestinationSpec, ModelSpec, SyncSpec

OPTIONS = 4
"""Options of a field that are shown."""


def read_fields(spec: DestinationSpec, storage: Path, object_: str, console: Console) -> list[TargetField]:
    """The fields of an object, as its destination describes them now.

    Raises:
        IntegrationsError: The destination describes nothing, cannot be reached, or refuses.
    """
    with surroundings(storage, console) as ctx:
        return list(describe(spec, ctx, object_, max_age=0.0).fields.values())


def print_fields(
    console: Console, spec: DestinationSpec, object_: str, found: Iterable[TargetField], *, writable: bool = False
) -> None:
    """A table of fields, by name.

    Args:
        writable: Only those that a sync may write.
    """
    shown = [field for field in found if field.writable or not writable]
    title = f"{object_} of {spec.name} ({spec.kind}), target {spec.target.name}: {len(shown)} field(s)"
    console.print(title, style="bold", markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "label", "type", "writable", "required", "unique", "options"):
        # Names and types are copied from here.
        table.add_column(name, overflow="fold", no_wrap=name in ("name", "type"))
    for field in sorted(shown, key=lambda field: field.name):
        native = f" ({field.native})" if field.native and field.native != field.type else ""
        options = ", ".join(field.options[:OPTIONS])
        if len(field.options) > OPTIONS:
            options += f", ... ({len(field.options)})"
        flags = ("yes" if flag else "no" for flag in (field.writable, field.required, field.unique))
        cells = (field.name, field.label, f"{field.type}{native}", *flags, options)
        table.add_row(*(Text(cell) for cell in cells), style=None if field.writable else "dim")
    console.print(table)


def suggest_for_sync(sync: SyncSpec, storage: Path, console: Console) -> str:
    """YAML of fields for the columns that a sync does not use yet.

    Raises:
        IntegrationsError: See `read_fields`; or the model cannot be queried.
    """
    with surroundings(storage, console) as ctx:
        columns = _columns(sync.model, ctx)
        fields = describe(sync.destination, ctx, sync.object, max_age=0.0).fields
    proposal = propose(
        fields.values(),
        columns,
        mapped_fields={*sync.match, *(field.target for field in sync.fields)},
        mapped_columns=set(sync.columns),
    )
    return f"# For {sync.source or sync.name}\n{as_yaml(proposal)}"


def suggest_for_model(model: ModelSpec, spec: DestinationSpec, object_: str, storage: Path, console: Console) -> str:
    """YAML of a sync that is not written yet.

    Raises:
        IntegrationsError: See `read_fields`; or the model cannot be queried.
    """
    with surroundings(storage, console) as ctx:
        columns = _columns(model, ctx)
        fields = describe(spec, ctx, object_, max_age=0.0).fields
    proposal = propose(fields.values(), columns, wants_match=True)
    head = {
        "name": f"{spec.name}_{object_}",
        "model": model.name,
        "destination": spec.name,
        "object": object_,
        "mode": "upsert",
    }
    lines = as_yaml(proposal, head).splitlines()
    return "\n".join(["type: integrations_dagster.Sync", "attributes:", *(f"  {line}" for line in lines)]) + "\n"


def _columns(model: ModelSpec, ctx: RunContext) -> Sequence[tuple[str, str]]:
    """Columns of the newest version of a model, of any partition; without one it is queried."""
    folder = folder_of(ctx.storage, model.name).parent
    keys = sorted((path.name for path in folder.iterdir() if path.is_dir()), reverse=True) if folder.is_dir() else []
    for key in keys:
        version = newest_version(ctx.storage, model.name, "" if key == "_" else _partition(key))
        if version is not None:
            return version.columns
    if model.partitioned:
        raise Misconfigured(
            f"No partition of the model {model.name!r} has been materialized.", "Materialize one first."
        )
    return run_query(model, ctx.storage, ctx.run_id, (), ctx.log)[0].columns


def _partition(folder: str) -> str:
    from urllib.parse import unquote

    return unquote(folder)
