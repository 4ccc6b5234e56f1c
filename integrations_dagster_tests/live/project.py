"""The project's own models and syncs in a folder of their own, with a small shop for a warehouse."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from integrations_dagster.sandbox.shop import create_shop

REPOSITORY = Path(__file__).parents[2]
PACKAGE = "live_project"
EDITS: Mapping[str, Mapping[str, str]] = {
    # Small batches: a few hundred rows are worth four write steps.
    "crm_contacts": {"match: {email: email}": "match: {email: email}\n  batch: {rows: 4}"},
    # A schedule that a test can wait for, and a limit that fails a run.
    "crm_companies": {
        'schedule: "0 * * * *"': 'schedule: "* * * * *"\n  fail_when: {rejected_above: 5%}',
    },
}
"""What is changed in the copies of `defs/`: text to text, by folder."""
LONGEST_TEXT = 65_536
"""Characters that HubSpot takes in a property."""
MAILBOX = re.compile(r"[a-z.+_'-]+\d+@(mail\.example\.com|post\.example\.org|example\.net|correo\.example\.es)")
"""The well-formed emails of the shop, normalized."""


class LiveProject:
    """A project folder with this repository's `defs/`, `sql/` and `dagster.yaml`.

    Args:
        folder: An existing, empty folder.
        customers: Rows of the shop.
        orders: Rows of the shop, over 90 days.
        edits: What is changed in the copies of `defs/`.
    """

    def __init__(
        self,
        folder: Path,
        customers: int = 400,
        orders: int = 3000,
        edits: Mapping[str, Mapping[str, str]] = EDITS,
    ) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.storage = folder / "storage"
        self.warehouse = folder / "warehouse.duckdb"
        package = folder / PACKAGE
        source = REPOSITORY / "integrations_dagster"
        shutil.copytree(source / "defs", package / "defs", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(REPOSITORY / "sql", folder / "sql")
        (package / "__init__.py").touch()
        shutil.copy(source / "definitions.py", package / "definitions.py")
        (folder / "pyproject.toml").write_text(
            f'[tool.dg]\ndirectory_type = "project"\n\n'
            f'[tool.dg.project]\nroot_module = "{PACKAGE}"\ndefs_module = "{PACKAGE}.defs"\n',
            "utf-8",
        )
        workspace = (REPOSITORY / "workspace.yaml").read_text("utf-8")
        assert "integrations_dagster.definitions" in workspace
        (folder / "workspace.yaml").write_text(
            workspace.replace("integrations_dagster.definitions", f"{PACKAGE}.definitions"), "utf-8"
        )
        self.home.mkdir()
        shutil.copy(REPOSITORY / "dagster.yaml", self.home / "dagster.yaml")
        for name, changes in edits.items():
            path = package / "defs" / name / "defs.yaml"
            text = path.read_text("utf-8")
            for old, new in changes.items():
                assert text.count(old) == 1, f"{path}: {old!r}"
                text = text.replace(old, new)
            path.write_text(text, "utf-8")
        create_shop(self.warehouse, customers=customers, orders=orders)

    def change(self, statement: str) -> None:
        """Change the warehouse, as its loaders would."""
        with duckdb.connect(str(self.warehouse)) as connection:
            connection.execute(statement)

    def rows(self, model: str, day: str | None = None) -> list[dict[str, Any]]:
        """What a model selects now, straight from the warehouse.

        Args:
            day: The day of a partitioned model, as 2026-06-01.
        """
        sql = (self.folder / "sql" / f"{model}.sql").read_text("utf-8")
        bound = {}
        if day is not None:
            after = date.fromisoformat(day) + timedelta(days=1)
            bound = {"partition_start": f"{day} 00:00:00+00", "partition_end": f"{after} 00:00:00+00"}
        with duckdb.connect(str(self.warehouse), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            found = connection.execute(sql, bound) if bound else connection.execute(sql)
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def customers_at_webhook(self) -> dict[str, dict[str, Any]]:
        """What `customers_to_webhook` must have delivered: record by key."""
        columns = ("customer_id", "email", "plan", "is_subscriber")
        found = {}
        for row in self.rows("customers"):
            name = " ".join(part for part in (row["firstname"], row["lastname"]) if part is not None)
            record = _json({name: row[name] for name in columns} | {"full_name": name or None})
            found[str(row["customer_id"])] = record | {
                "source": "warehouse",
                "lifetime_value": float(row["lifetime_value"]),
            }
        return found

    def orders_at_webhook(self, day: str) -> dict[str, dict[str, Any]]:
        """What `orders_to_webhook` must have delivered of a day: record by key."""
        columns = ("order_id", "customer_id", "ordered_at", "status", "amount", "currency", "amount_eur", "items")
        found = {}
        for row in self.rows("orders_daily", day):
            # A JSON column goes as text, in one form for each document.
            items = json.dumps(json.loads(row["items"]), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            found[str(row["order_id"])] = _json({name: row[name] for name in columns} | {"items": items})
        return found

    def contacts(self) -> dict[str, dict[str, str]]:
        """The contacts that HubSpot must hold, by email: the rows that are neither invalid nor rejected."""
        rows = self.rows("customers")
        shared = Counter((row["email"] or "").strip().lower() for row in rows)
        found = {}
        for row in rows:
            email = (row["email"] or "").strip().lower()
            if MAILBOX.fullmatch(email) and shared[email] == 1 and len(row["notes"] or "") <= LONGEST_TEXT:
                found[email] = {
                    "customer_id": str(row["customer_id"]),
                    "lifetime_value": str(row["lifetime_value"]),
                    "firstname": row["firstname"] or "",
                }
        return found


def _json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the webhook gets it: no nulls, exact decimals, moments in UTC."""
    result = {}
    for name, value in row.items():
        if isinstance(value, Decimal):
            result[name] = str(value)
        elif hasattr(value, "utcoffset"):
            result[name] = value.isoformat().replace("+00:00", "Z")
        elif value is not None:
            result[name] = value
    return result
