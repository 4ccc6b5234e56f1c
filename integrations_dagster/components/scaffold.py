"""Commented examples: what `dg scaffold defs integrations_dagster.Sync NAME` writes."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import ClassVar

import dagster as dg
from dagster.components.component_scaffolding import scaffold_component

HEADER = "type: {type}\n\nattributes:\n"


class ExampleScaffolder(dg.Scaffolder):
    """Writes a defs.yaml in which each key is explained; `{name}` is the name of its folder."""

    example: ClassVar[str]

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        if request.scaffold_format != "yaml":
            scaffold_component(request)
            return
        file = request.target_path if request.append else request.target_path / "defs.yaml"
        folder = file.parent
        name = re.sub(r"\W", "_", folder.name)
        text = HEADER.format(type=request.type_name)
        text += textwrap.indent(textwrap.dedent(self.example).strip("\n").replace("{name}", name), "  ") + "\n"
        if request.append:
            text = f"{file.read_text(encoding='utf-8').rstrip()}\n---\n{text}"
        file.write_text(text, encoding="utf-8")
        if request.project_root is not None:
            self.beside(request.project_root, name)

    def beside(self, project_root: Path, name: str) -> None:
        """Write what the example refers to, where it is missing."""


class WarehouseScaffolder(ExampleScaffolder):
    example = """
        name: {name}              # a model's `warehouse:` names it; a model without one uses "warehouse"
        kind: duckdb
        path: warehouse.duckdb    # relative to the project; opened read-only, and briefly
        # kind: postgres
        # url: {env: WAREHOUSE_URL}  # postgresql://user:password@host:port/database; a read-only user will do
    """


class ModelScaffolder(ExampleScaffolder):
    example = """
        sql: {name}.sql           # in the folder sql/ of the project; one SELECT
        primary_key: id           # a column, or a list of columns
        # table: raw.{name}       # instead of sql: a table of the warehouse
        # asset: raw/{name}       # instead of sql: an upstream asset that yields a data frame or names a table
        # read: auto              # how the asset is read: auto, value or table
        # warehouse: warehouse    # which warehouse it queries
        # name: {name}            # default: the file's name
        # cursor: updated_at      # for a model too large to query whole; the SQL then selects the rows from $cursor on
        # partitions:             # the SQL then selects the rows from $partition_start to $partition_end
        #   daily: {start: "2026-01-01"}
    """

    def beside(self, project_root: Path, name: str) -> None:
        file = project_root / "sql" / f"{name}.sql"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            file.write_text("-- One row for each id.\nSELECT 1 AS id\n", encoding="utf-8")


class DestinationScaffolder(ExampleScaffolder):
    example = """
        name: {name}              # a sync's `destination:` names it
        kind: hubspot             # or salesforce, webhook, sql, file; any API: http, graphql, soap, jsonrpc, xmlrpc
        targets:                  # accounts; INTEGRATIONS_TARGET picks one
          sandbox: {sandbox: true}  # the default: the local sandbox
          # prod:
          #   base_url: https://api.hubapi.com
          #   token: {env: HUBSPOT_TOKEN}  # a webhook takes no token but may take `secret: {env: NAME}`
          #   schedules: true     # schedules of its syncs start running by default
        # timeout: 30             # seconds of a request
        # in_flight: 16           # requests at once, over all shards
        # quota:                  # of the account, instead of what the kind is known to have
        #   - {requests: 100, per: 10s}
        #   - {requests: 250000, per: 1d}
        # concurrency: 10         # requests at once over all that use the account
        # retry: {attempts: 5, base: 0.5, cap: 15}  # of a request that meets an outage; seconds
        # request_log: {days: 14, bodies: failed}   # bodies: failed, all or none
        # fields_cache: 1h        # how long what it says of an object's fields is used; default: each run asks once
    """


class SyncScaffolder(ExampleScaffolder):
    example = """
        name: {name}              # its asset; its state hangs on this name
        model: my_model           # To do: a Model of any folder
        # asset: raw/customers    # instead of model: an upstream asset that yields a data frame or names a table
        # primary_key: id         # with asset
        destination: my_crm       # To do: a Destination of any folder
        object: contacts          # what the rows become there
        mode: upsert              # upsert: create and update; mirror: also remove; others: docs/modes.md
        match: {email: email}     # what a record is recognized by: field and column; a webhook takes none
        fields:                   # field of the destination: column of the model
          firstname: first_name
          lastname: {column: last_name}
          lead_source: {value: warehouse}  # a constant
          # full_name: {sql: "first_name || ' ' || last_name"}  # an expression over the model's columns
          # phone: {column: phone, type: phone, region: US, on_error: drop}  # checked and normalized
          # birthday: {column: birthday, sensitive: true}  # kept out of logs, reasons and previews
          # hubspot_owner_id: {lookup: owners, column: owner_email}  # the id of the owner with this email
        # lookups:                # how fields look values up
        #   owners: {cache: 6h, no_match: reject, several: reject}
        # nulls: omit             # nulls are left out; clear: they empty the field at the destination
        # batch: {rows: 100, bytes: 1000000, row_bytes: 100000}  # of a request; default: the destination's limits
        # in_doubt: hold          # modes insert and append: rows that got no answer: hold, verify or resend
        # rejected: {max_attempts: 10, wait: 15m, longest_wait: 24h}  # how rejected rows are tried again
        # sync_log: {days: 90}    # how long the log of what was sent is kept
        # keep_values: true       # keep the last values of each record: a preview then shows old and new
        # shards: 4               # parallel write steps, at the most 32
        # schedule: "*/15 * * * *"
        # trigger: model          # run whenever the model was materialized by something else
        # fail_when: {rejected_above: 5%}
        # alerts: {slack: "#crm", when: {rejected_above: 1%}}
        # removal_limit: 20%      # mirror and delete: what one run may remove
        # guards: {queried: {warn: 50%, stop: 90%}, added: {most: 50000}}  # numbers far from the usual
        # owner: true             # it may write what another sync writes too
        # dedupe_window: 30d      # append: how long keys are remembered; default: for good
        # home: embedded          # or warehouse: its state as tables of the warehouse, where changes are found
    """
