"""Kind `file` conforms: what its readers come to who apply the change files in their order."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from integrations_dagster.testing import Subject, conformance_tests
from integrations_dagster.vocabulary import Mode

ABOUT = ("_change", "_key", "_partition", "_at")
SPLIT = {"declaration": "The modes of one object are told by two subjects, and the other one is asked."}


class Changes(Subject):
    """Change files of JSON lines."""

    destination = "file"
    object = "sales/people"
    text = "name"
    not_numbers = True
    folder: Path

    @contextmanager
    def serve(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="lake-") as folder:
            self.folder = Path(folder)
            yield self.folder.as_uri()

    def reset(self) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path)

    def lines(self) -> Iterator[dict[str, Any]]:
        """All rows of all files, in the order in which their batches were made."""
        for path in sorted(self.folder.rglob("*.*"), key=lambda path: path.name):
            yield from self.read(path)

    def read(self, path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        latest: dict[str, dict[str, Any]] = {}
        for line in sorted(self.lines(), key=lambda line: str(line["_at"])):
            if line["_change"] == "removed":
                latest.pop(line["_key"], None)
            else:
                latest[line["_key"]] = _fields(line)
        yield from latest.items()

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"name": f"Name {version}", "amount": Decimal("12.50"), "age": 40 + version, "vip": True}


class Events(Changes):
    """Rows that are told once: whatever is in two files is there twice."""

    modes = frozenset({Mode.INSERT, Mode.APPEND})
    skip = SPLIT

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for line in self.lines():
            yield line["_key"], _fields(line)


class ParquetChanges(Changes):
    """Change files of Parquet, with a column that not every number fits."""

    option = {"format": "parquet", "types": {"amount": "decimal(7,2)", "age": "int64", "vip": "boolean"}}  # noqa: RUF012

    def read(self, path: Path) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows

    def bad(self, key: str, version: int) -> dict[str, Any]:
        return {**self.good(key, version), "amount": Decimal("123456.78")}


class ParquetEvents(ParquetChanges, Events):
    """The same of rows that are told once."""

    modes = Events.modes
    skip = SPLIT
    records = Events.records


def _fields(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ABOUT}


TestChanges = conformance_tests(Changes())
TestEvents = conformance_tests(Events())
TestParquetChanges = pytest.mark.slow(conformance_tests(ParquetChanges()))
TestParquetEvents = pytest.mark.slow(conformance_tests(ParquetEvents()))
