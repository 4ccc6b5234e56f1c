"""`integrations`: the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from integrations_dagster.cli import project as projects
from integrations_dagster.vocabulary import IntegrationsError

if TYPE_CHECKING:
    from integrations_dagster.cli.run import Launch
    from integrations_dagster.sync.spec import SyncSpec

app = typer.Typer(
    name="integrations",
    help="Reverse ETL inside Dagster: deliver SQL models to the APIs of business tools.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

scaffolds = typer.Typer(help="Write files to begin with.", no_args_is_help=True)
app.add_typer(scaffolds, name="scaffold")

ProjectOption = Annotated[Path, typer.Option("--project", help="Any folder of the project.", show_default="here")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Deliver at most N rows; removes nothing.")]
KeysOption = Annotated[
    list[str] | None, typer.Option(help="Only these primary keys, separated by commas; removes nothing.")
]
PartitionOption = Annotated[list[str] | None, typer.Option("--partition", help="A partition key; may be repeated.")]
QueryOption = Annotated[bool, typer.Option("--query/--no-query", help="Query the model, or use its newest version.")]
RemovalsOption = Annotated[bool, typer.Option("--allow-removals", help="Lift the removal guard for this run.")]
VolumeOption = Annotated[bool, typer.Option("--allow-volume", help="Lift the guards on volume for this run.")]
FullResyncOption = Annotated[
    bool, typer.Option("--full-resync", help="Forget what was delivered, and deliver every row anew.")
]
ResyncKeysOption = Annotated[
    list[str] | None, typer.Option(help="Deliver the rows with these primary keys anew, separated by commas.")
]
FormatOption = Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="How rows are printed.")]
TargetOption = Annotated[str, typer.Option(help="Which of its accounts.", show_default="INTEGRATIONS_TARGET")]
HERE = Path()


class Place(StrEnum):
    """Where state lives."""

    EMBEDDED = "embedded"
    WAREHOUSE = "warehouse"


@app.command("list")
def list_syncs(project: ProjectOption = HERE) -> None:
    """List the syncs of the project, and what is broken in it."""
    from integrations_dagster.cli import show

    loaded = projects.load(project)
    show.print_syncs(show.out(), loaded.specs, loaded.broken)


@app.command()
def preview(
    sync: str,
    limit: LimitOption = None,
    keys: KeysOption = None,
    partition: PartitionOption = None,
    query: QueryOption = True,
    allow_removals: RemovalsOption = False,
    allow_volume: VolumeOption = False,
    full_resync: FullResyncOption = False,
    resync_keys: ResyncKeysOption = None,
    samples: Annotated[int, typer.Option(min=0, help="Payloads to show.")] = 5,
    project: ProjectOption = HERE,
) -> None:
    """Show what a run of SYNC would send: counts and sample payloads. Nothing is sent."""
    from integrations_dagster.cli import run, show

    loaded = projects.load(project)
    storage = projects.prepare(loaded.root)
    spec = loaded.sync(sync)
    launch = run.Launch(
        projects.windows(loaded, spec, partition or ()),
        limit,
        projects.parse_keys(keys),
        query,
        allow_removals=allow_removals,
        allow_volume=allow_volume,
        full_resync=full_resync,
        resync_keys=projects.parse_keys(resync_keys),
    )
    found = run.preview_sync(spec, storage, launch, show.err(), samples)
    show.print_preview(show.out(), spec, found)


@app.command()
def run(
    sync: str,
    limit: LimitOption = None,
    keys: KeysOption = None,
    partition: PartitionOption = None,
    query: QueryOption = True,
    allow_removals: RemovalsOption = False,
    allow_volume: VolumeOption = False,
    full_resync: FullResyncOption = False,
    resync_keys: ResyncKeysOption = None,
    project: ProjectOption = HERE,
) -> None:
    """Deliver SYNC from this terminal, with a progress bar."""
    from integrations_dagster.cli import run

    loaded = projects.load(project)
    storage = projects.prepare(loaded.root)
    spec = loaded.sync(sync)
    launch = run.Launch(
        projects.windows(loaded, spec, partition or ()),
        limit,
        projects.parse_keys(keys),
        query,
        allow_removals=allow_removals,
        allow_volume=allow_volume,
        full_resync=full_resync,
        resync_keys=projects.parse_keys(resync_keys),
    )
    _deliver(spec, storage, launch)


def _deliver(spec: SyncSpec, storage: Path, launch: Launch) -> None:
    from integrations_dagster.cli import run, show

    made, report = run.run_sync(spec, storage, launch, show.err())
    console = show.out()
    target = spec.destination.target.name
    show.print_run(console, f"{spec.name}, target {target}", {spec.name: show.numbers_of_report(made, report)})
    show.print_bad_rows(console, report)
    show.print_notes(console, dict.fromkeys((*made.notes, *report.notes)))
    if report.failures:
        raise IntegrationsError(f"Sync {spec.name!r} failed. {' '.join(report.failures)}")


@app.command()
def retry(
    sync: str,
    key: Annotated[list[str] | None, typer.Option(help="Only the row with this primary key; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="Only rows held since then: ISO time (UTC), or 2h, 3d ago.")] = None,
    reason: Annotated[str, typer.Option(help="Only rows with this code, or this text in their reason.")] = "",
    in_doubt: Annotated[
        bool, typer.Option("--in-doubt", help="Rows in doubt too, which may then be there twice.")
    ] = False,
    partition: PartitionOption = None,
    project: ProjectOption = HERE,
) -> None:
    """Send held rows of SYNC again: rejected and parked ones, and no others."""
    from integrations_dagster.cli import rows, show

    loaded = projects.load(project)
    storage = projects.prepare(loaded.root)
    spec = loaded.sync(sync)
    release = rows.release_of(key or (), since, reason, in_doubt=in_doubt)
    _deliver(spec, storage, rows.retry_launch(loaded, spec, storage, release, partition or (), show.err()))


@app.command()
def confirm(
    sync: str,
    key: Annotated[list[str], typer.Option(help="Primary key of a row in doubt; may be repeated.")],
    destination_id: Annotated[str | None, typer.Option("--id", help="The record's id at the destination.")] = None,
    project: ProjectOption = HERE,
) -> None:
    """Say that rows in doubt ARE at the destination; to say that they are not, `retry` them."""
    from integrations_dagster.cli import rows, show

    loaded = projects.load(project)
    storage = projects.prepare(loaded.root)
    confirmed = rows.confirm_rows(loaded.sync(sync), storage, key, destination_id, show.err())
    show.print_notes(show.out(), (f"Row {found}: recorded as delivered." for found in confirmed))
    if others := [wanted for wanted in dict.fromkeys(key) if wanted not in confirmed]:
        raise IntegrationsError(
            f"Sync {sync!r}: not in doubt: {', '.join(others)}.", f"See why with `integrations trace {sync} KEY`."
        )


@app.command()
def trace(
    sync: str,
    key: str,
    bodies: Annotated[bool, typer.Option("--bodies", help="Show the bodies of requests that were kept.")] = False,
    project: ProjectOption = HERE,
) -> None:
    """Show what became of one row of SYNC: changes, requests, outcomes, across runs."""
    from integrations_dagster.cli import rows, show

    loaded = projects.load(project)
    storage = projects.prepare(loaded.root)
    spec = loaded.sync(sync)
    rows.print_trace(show.out(), spec, key, rows.trace_row(spec, storage, key, show.err()), bodies=bodies)


@app.command()
def log(
    sync: str,
    key: Annotated[str | None, typer.Option(help="Only the row with this primary key.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only rows with this outcome, as rejected.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="Only this run.")] = None,
    since: Annotated[str | None, typer.Option(help="Only rows since then: ISO time (UTC), or 2h, 3d ago.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest N rows.")] = 50,
    format_: FormatOption = "table",
    project: ProjectOption = HERE,
) -> None:
    """Show what SYNC sent, row by row, with outcome and reason."""
    import time
    from datetime import UTC, datetime

    from integrations_dagster.cli import log, rows, show
    from integrations_dagster.sync.log import rows as logged

    storage = projects.prepare(projects.project_root(project))
    log.check_logged(storage, sync)
    moment = datetime.fromtimestamp(rows.parse_since(since, time.time()), UTC) if since else None
    columns = ("time", "run_id", "key", "match_value", "change", "outcome", "code", "reason", "destination_id")
    shown = columns if format_ == "table" else ("*",)
    found = logged(storage, sync, columns=shown, run_id=run_id, key=key, outcome=outcome, since=moment, most=limit)
    log.print_rows(show.out(), found, log.Format(format_))


@app.command()
def runs(
    sync: Annotated[str, typer.Argument(help="Only this sync's.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="The newest N runs.")] = 20,
    format_: FormatOption = "table",
    project: ProjectOption = HERE,
) -> None:
    """Show the runs of SYNC, or of all syncs, with their counts."""
    from integrations_dagster.cli import log, show
    from integrations_dagster.sync.log import select

    storage = projects.prepare(projects.project_root(project))
    log.check_logged(storage, sync)
    columns = "started, sync, target, outcome, queried, added, changed, removed, created, updated, deleted, rejected, "
    columns += "invalid, in_doubt, unsent, run_id, reason"
    chosen = columns if format_ == "table" else "*"
    newest = "(SELECT * FROM sync_runs ORDER BY started DESC LIMIT $most)"
    asked = " ".join(("SELECT", chosen, "FROM", newest, "ORDER BY started"))
    log.print_rows(show.out(), select(storage, asked, {"most": limit}, sync=sync), log.Format(format_))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over sync_runs, sync_log, sync_snapshot (DuckDB's SQL).")],
    format_: FormatOption = "table",
    project: ProjectOption = HERE,
) -> None:
    """Ask the sync log with SQL. Nothing is changed, and runs may be under way."""
    from integrations_dagster.cli import log, show
    from integrations_dagster.sync.log import select

    storage = projects.prepare(projects.project_root(project))
    log.print_rows(show.out(), select(storage, query), log.Format(format_))


@app.command()
def fields(
    destination: str,
    object_: Annotated[str, typer.Argument(metavar="OBJECT", help="An object there, as contacts.")],
    target: TargetOption = "",
    writable: Annotated[bool, typer.Option("--writable", help="Only those that a sync may write.")] = False,
    project: ProjectOption = HERE,
) -> None:
    """List the fields of OBJECT at DESTINATION: names, types, what may be written. They are read now."""
    from integrations_dagster.cli import fields as reading
    from integrations_dagster.cli import show
    from integrations_dagster.components.names import target_in_force

    loaded = projects.load(project)
    storage = projects.prepare(loaded.root)
    spec = loaded.destination(destination).spec(target or target_in_force())
    found = reading.read_fields(spec, storage, object_, show.err())
    reading.print_fields(show.out(), spec, object_, found, writable=writable)


@app.command()
def suggest(
    sync: Annotated[str, typer.Argument(help="A sync whose unused columns are to be mapped.")] = "",
    model: Annotated[str, typer.Option(help="Without SYNC: the model to map.")] = "",
    destination: Annotated[str, typer.Option(help="Without SYNC: where to.")] = "",
    object_: Annotated[str, typer.Option("--object", help="Without SYNC: what the rows become there.")] = "",
    project: ProjectOption = HERE,
) -> None:
    """Propose fields for SYNC, or for a model and an object that no sync maps yet, as YAML to paste."""
    from integrations_dagster.cli import fields as reading
    from integrations_dagster.cli import show
    from integrations_dagster.components.names import target_in_force

    loaded = projects.load(project)
    storage = projects.prepare(loaded.root)
    if bool(sync) == bool(model or destination or object_) or (not sync and not (model and destination and object_)):
        raise IntegrationsError(
            "Either a sync is needed, or all of --model, --destination and --object.",
            "For one that is not written yet: integrations suggest --model M --destination D --object O.",
        )
    if sync:
        text = reading.suggest_for_sync(loaded.sync(sync), storage, show.err())
    else:
        spec = loaded.destination(destination).spec(target_in_force())
        text = reading.suggest_for_model(loaded.model(model), spec, object_, storage, show.err())
    show.out().print(text, markup=False, end="", soft_wrap=True)


@app.command()
def home(
    sync: str,
    to: Annotated[Place | None, typer.Argument(help="Where to move it; without it, say where it is.")] = None,
    project: ProjectOption = HERE,
) -> None:
    """Move the state of SYNC (for the account in force) between files and its warehouse. Nothing is sent again."""
    from integrations_dagster.cli import run, show
    from integrations_dagster.sync import homes

    loaded = projects.load(project)
    storage = projects.prepare(loaded.root)
    spec = loaded.sync(sync)
    with run.surroundings(storage, show.err()) as ctx:
        if to is not None:
            told = homes.move_home(spec, ctx, to.value)
        else:
            place = homes.place_of(spec, ctx)
            where = f"is in {homes.WHERE[place]}" if place else "begins with its first run"
            told = f"The state of sync {sync!r} {where} (YAML: home: {spec.home})."
    show.print_notes(show.out(), (told,))


@app.command()
def auth(
    destination: str,
    target: TargetOption = "",
    # Not any port by default: vendors want to know the whole redirect address beforehand.
    port: Annotated[int, typer.Option(help="Port of 127.0.0.1 for the redirect address; 0: any.")] = 8914,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the browser.")] = 300,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the address, or print it only.")] = True,
    project: ProjectOption = HERE,
) -> None:
    """Allow DESTINATION's account to be used, once, in the browser (OAuth 2); its token is stored."""
    from integrations_dagster.cli import auth, show
    from integrations_dagster.components.names import target_in_force

    loaded = projects.load(project)
    storage = projects.prepare(loaded.root)
    spec = loaded.destination(destination).spec(target or target_in_force())
    auth.authorize(spec, storage, port, timeout, browser, show.err())


@scaffolds.command("destination")
def scaffold_destination(
    name: Annotated[str, typer.Argument(help="Its name, and that of its kind with --python: small letters, _.")],
    python: Annotated[
        bool, typer.Option("--python", help="A class, for an API that the YAML of kind http cannot describe.")
    ] = False,
    tests: Annotated[Path, typer.Option(help="Folder of the project's tests.")] = Path("tests"),
    project: ProjectOption = HERE,
) -> None:
    """Write a destination and its conformance test, to be filled in. Files that are there stay as they are."""
    from integrations_dagster.cli import scaffold, show

    root = projects.project_root(project)
    show.print_notes(show.out(), scaffold.destination(root, name, tests, python=python))


@app.command()
def warehouse(
    path: Annotated[Path, typer.Option(help="The DuckDB file to create.")] = Path("warehouse.duckdb"),
    customers: Annotated[int, typer.Option(min=1, help="Rows of raw.customers.")] = 50_000,
    orders: Annotated[int, typer.Option(min=0, help="Rows of raw.orders.")] = 500_000,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Create the sample warehouse: raw tables of a subscription shop."""
    from integrations_dagster.cli import show
    from integrations_dagster.sandbox.shop import create_shop, describe_shop

    if path.exists() and not force:
        shop = describe_shop(path)
        state = f"is there already, changed {shop.rounds} time(s)"
    else:
        shop = create_shop(path, customers, orders)
        state = "created"
    show.out().print(
        f"{path}: {state}; made with {shop.customers:,} customers and {shop.orders:,} orders.", markup=False
    )


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(help="A port of 127.0.0.1; 0: the last one if it is free, else any.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log each request.")] = False,
    project: ProjectOption = HERE,
) -> None:
    """Serve the sandbox, the local stand-in of all destinations, until Ctrl-C. Its state is kept."""
    from integrations_dagster.cli import show
    from integrations_dagster.sandbox.server import serve

    storage = projects.prepare(projects.project_root(project))
    show.err().print(f"Sandbox of {storage}. Stop it with Ctrl-C.", markup=False)
    serve(storage, port, quiet=not verbose)


@app.command()
def demo(project: ProjectOption = HERE) -> None:
    """Run the demo's syncs through Dagster into the sandbox, change some rows, and run again."""
    from integrations_dagster.cli.demo import run_demo

    run_demo(projects.project_root(project))


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Where to begin to look for a free port of 127.0.0.1.")] = 3000,
    project: ProjectOption = HERE,
) -> None:
    """Start the Dagster UI and its daemon with the sandbox beside them, until Ctrl-C."""
    from integrations_dagster.cli.ui import run_ui

    raise typer.Exit(run_ui(projects.project_root(project), port))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point: an error that this package raises on purpose is a message, not a traceback.

    Args:
        arguments: Those after the program's name; default: the process's own.

    Raises:
        SystemExit: Always.
    """
    try:
        app(arguments, prog_name="integrations")
    except IntegrationsError as error:
        _tell(error)
        sys.exit(1)
    sys.exit(0)


def _tell(error: IntegrationsError) -> None:
    from integrations_dagster.cli import show

    console = show.err()
    console.print(f"Error: {error.message.rstrip()}", style="red", markup=False, soft_wrap=True)
    if error.remedy:
        console.print(error.remedy, markup=False, soft_wrap=True)
