"""What a plan leaves out changes nothing: it finds what it finds where every row and record is judged."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import integrations_dagster.planner.diff as planner
from integrations_dagster.planner import narrowing
from integrations_dagster.planner.candidates import Settings
from integrations_dagster.planner.model import Source, digest_text, load_model
from integrations_dagster.planner.narrowing import Stayed
from integrations_dagster.planner.state import HELD_COLUMNS, SNAPSHOT_COLUMNS, Home, Manifest, connect
from integrations_dagster.planner.warehouse_home import WarehouseHome, repeats, write_changes
from integrations_dagster.vocabulary import Misconfigured, Mode
from integrations_dagster.warehouses.base import WarehouseAddress
from integrations_dagster.warehouses.store import SCHEMA
from integrations_dagster_tests.planner.world import Kept, home_in

KEYS = tuple("abcdef")
EMAILS = tuple(f"{letter}@x.org" for letter in "uvwxyz")
PARTS = ("p1", "p2", "p3")
SAME = tuple(f"same{number}" for number in range(30))
"""Keys of rows that have been delivered and have not changed, so that there is something to leave out."""
Row = tuple[str | None, str | None, str, str]
"""Key, email, name, partition."""
Record = tuple[Row, str, str | None]
Held = tuple[str, str, bool]

ROW = st.tuples(
    st.sampled_from((*KEYS, SAME[0], None)),
    st.sampled_from((*EMAILS, f"{SAME[1]}@x.org", None)),
    st.sampled_from("12"),
    st.sampled_from(PARTS),
)
ROWS = st.lists(ROW, max_size=6, unique_by=lambda row: row[0] or object())
RECORD = st.tuples(ROW, st.sampled_from(("known", "other", "unknown")), st.sampled_from((None, "1", "2", "3")))
"""A row that was delivered; whether its digest is of what was delivered; the id of the record."""
RECORDS = st.lists(RECORD, max_size=6, unique_by=lambda record: record[0][:2])
HELD = st.lists(
    st.tuples(st.sampled_from((*KEYS, SAME[2])), st.sampled_from(("rejected", "in_doubt", "invalid")), st.booleans()),
    max_size=2,
    unique_by=lambda held: held[0],
)


class Place:
    """A model and a state, in files."""

    def __init__(self, folder: Path, partitions: tuple[str, ...]) -> None:
        self.folder = folder
        self.partitions = partitions
        self._plans = 0

    def source(self, rows: list[Row]) -> Source:
        files = {}
        for part in self.partitions:
            self._plans += 1
            path = self.folder / f"model-{self._plans}.parquet"
            chosen = [row for row in rows if part in ("", row[3])]
            columns = {name: [row[place] for row in chosen] for place, name in enumerate(("id", "email", "name"))}
            pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}), path)
            files[part] = [path]
        return Source(files, ("id",), ("email",), ("exact",), ("email", "name"), "m")

    def digests(self, rows: list[Row]) -> dict[tuple[str | None, str | None, str], str]:
        source = self.source(rows)
        with connect(self.folder) as connection:
            load_model(connection, "people", source)
            digest = digest_text(source, source.columns)
            found = connection.execute(f"SELECT id, email, name, {digest} FROM files").fetchall()
            return {(key, email, name): digest for key, email, name, digest in found}

    def keep(self, name: str, columns: dict[str, str], rows: list[dict[str, Any]]) -> str:
        kinds: dict[str, pa.DataType] = {
            "VARCHAR": pa.string(),
            "BIGINT": pa.int64(),
            "INTEGER": pa.int32(),
            "DOUBLE": pa.float64(),
        }
        schema = pa.schema([(column, kinds[kind]) for column, kind in columns.items()])
        pq.write_table(pa.Table.from_pylist(rows, schema), self.folder / name)
        return name

    def plan(self, source: Source, manifest: Manifest, mode: Mode, home: Home | None = None) -> Any:
        """All that a plan finds, in no order."""
        self._plans += 1
        folder = self.folder / f"plan-{self._plans}"
        setting = Settings("people", mode, removal_limit=1.0, shards=1, now=1000.0)
        try:
            found = planner.diff(home or Home(self.folder), manifest, source, setting, folder)
        except Misconfigured as error:
            return str(error)
        # What has left a warehouse lies beside what was found.
        files = {
            path.name: sorted(map(repr, pq.read_table(path).to_pylist()))
            for path in folder.glob("*.parquet")
            if path.name not in ("rows.parquet", "snapshot.parquet", "held.parquet")
        }
        return found.counts, found.held, sorted(found.left_behind), files


A: Row = ("a", "u@x.org", "1", "p1")
B: Row = ("b", "v@x.org", "1", "p1")
MODES = st.sampled_from((Mode.MIRROR, Mode.UPSERT, Mode.INSERT, Mode.UPDATE))
RUN = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
eachway = pytest.mark.parametrize("carried", [narrowing.CARRIED, 0], ids=["carried", "read since"])


@eachway
@pytest.mark.parametrize("partitions", [("",), ("p1", "p2")], ids=["whole", "partitioned"])
@RUN
@given(ROWS, RECORDS, HELD, MODES, st.booleans())
@example([], [(A, "known", "1")], [], Mode.MIRROR, False)  # a record without a row
@example([A], [(A, "known", "1"), (("a", "v@x.org", "1", "p1"), "other", None)], [], Mode.MIRROR, False)
@example([A], [(A, "known", "1"), (("a", "v@x.org", "1", "p3"), "known", None)], [], Mode.UPSERT, False)
@example([A], [(A, "known", "1"), (("a", "v@x.org", "1", "p1"), "unknown", "1")], [], Mode.MIRROR, False)
@example([], [], [(SAME[2], "rejected", True)], Mode.UPSERT, False)  # a held row that is the same as its record
@example([], [], [], Mode.UPSERT, True)  # a row twice
def test_what_is_left_out_changes_nothing(
    partitions: tuple[str, ...],
    carried: int,
    rows: list[Row],
    records: list[Record],
    held: list[Held],
    mode: Mode,
    repeated: bool,
) -> None:
    narrowed(partitions, carried, rows, records, held, mode, repeated=repeated)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@eachway
@settings(RUN, max_examples=150, derandomize=False, print_blob=True)
@given(st.sampled_from((("",), ("p1",), ("p1", "p2"))), ROWS, RECORDS, HELD, MODES, st.booleans())
def test_long_what_is_left_out(
    carried: int,
    partitions: tuple[str, ...],
    rows: list[Row],
    records: list[Record],
    held: list[Held],
    mode: Mode,
    repeated: bool,
) -> None:
    narrowed(partitions, carried, rows, records, held, mode, repeated=repeated)


@dataclass(frozen=True)
class Situation:
    """A model, and what is known of its delivery: rows of the model, of the snapshot, and held ones."""

    model: list[Row]
    snapshot: list[dict[str, Any]]
    held: list[dict[str, Any]]


def situation(
    folder: Path, inside: str, rows: list[Row], records: list[Record], held: list[Held], *, repeated: bool
) -> Situation:
    """Random rows, records and held rows beside those of `SAME`, whose partition is `inside`."""
    same: list[Row] = [(key, f"{key}@x.org", "1", inside) for key in SAME]
    taken = {row[0] for row in rows}
    model = [*rows, *(row for row in same if row[0] not in taken), *(same[3:4] if repeated else [])]
    delivered = [*((row, "known", f"id-{row[0]}") for row in same), *records]
    everywhere = Place(folder, ("",)).digests([row for row, _, _ in delivered])
    snapshot = [
        {
            "key": key,
            "match": email,
            "partition": "" if inside == "" else part,
            "destination_id": record_id,
            "source_digest": {"known": everywhere[key, email, name], "other": f"{number:032x}", "unknown": None}[
                digest
            ],
            "payload_digest": "p",
            "number": number,
        }
        for number, ((key, email, name, part), digest, record_id) in enumerate(delivered)
        if key and email
    ]
    digests = {row["key"]: row["source_digest"] for row in snapshot}
    waiting = [
        {
            "key": key,
            "match": f"{key}@x.org",
            "partition": inside,
            "source_digest": digests.get(key) if unchanged else "1" * 32,
            "status": status,
            "attempts": 1,
            "not_before": 2000.0,
            "code": "C",
            "reason": "R",
            "since": 0.0,
        }
        for key, status, unchanged in held
    ]
    return Situation(model, snapshot, waiting)


def kept(place: Place, state: Situation) -> Manifest:
    """The state, in files."""
    return Manifest(
        1,
        0,
        place.keep("snapshot-1-0.parquet", SNAPSHOT_COLUMNS, state.snapshot),
        place.keep("held-1-0.parquet", HELD_COLUMNS, state.held),
        rows=len(state.snapshot),
    )


def leave_nothing_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planner, "load_rest", lambda c, sync, source, removes: (load_model(c, sync, source), Stayed()))  # noqa: ARG005


def narrowed(
    partitions: tuple[str, ...],
    carried: int,
    rows: list[Row],
    records: list[Record],
    held: list[Held],
    mode: Mode,
    *,
    repeated: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrowing, "CARRIED", carried)
        # As of a plan of many rows.
        patch.setattr(planner, "IN_ORDER", 0)
        place = Place(Path(folder), partitions)
        state = situation(Path(folder), partitions[0], rows, records, held, repeated=repeated)
        manifest, source = kept(place, state), place.source(state.model)
        found = place.plan(source, manifest, mode)
        leave_nothing_out(patch)
        assert found == place.plan(source, manifest, mode)


@pytest.fixture(scope="module")
def opened(address: WarehouseAddress) -> Iterator[WarehouseHome]:
    """A home in a warehouse that has no state: what plans are made against are changes that are not in force."""
    store = Kept(address)
    with tempfile.TemporaryDirectory() as folder:
        yield home_in(address, Path(folder), store)
    store.store.__exit__(None, None, None)


@pytest.mark.parametrize("partitions", [("",), ("p1", "p2")], ids=["whole", "partitioned"])
@settings(RUN, max_examples=5)
@given(ROWS, RECORDS, HELD, MODES, st.booleans())
@example([("a", "u@x.org", "2", "p1")], [(A, "known", "1"), (B, "known", "1")], [], Mode.MIRROR, False)  # one id
@example([B], [(A, "known", "1"), (B, "known", "1")], [], Mode.MIRROR, False)
@example([("a", "w@x.org", "1", "p1"), B], [(A, "known", "1"), (B, "known", "1")], [], Mode.MIRROR, False)
@example([], [((SAME[0], "u@x.org", "1", "p1"), "known", None)], [], Mode.MIRROR, False)  # two records of a key
@example([], [((SAME[3], "u@x.org", "1", "p1"), "known", None)], [], Mode.MIRROR, True)  # and its row twice
@example([], [], [(SAME[2], "rejected", True)], Mode.UPSERT, False)
@example([], [], [], Mode.UPSERT, True)
def test_what_stays_in_the_warehouse_changes_nothing(
    opened: WarehouseHome,
    partitions: tuple[str, ...],
    rows: list[Row],
    records: list[Record],
    held: list[Held],
    mode: Mode,
    repeated: bool,
) -> None:
    stayed(opened, partitions, rows, records, held, mode, repeated=repeated)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(RUN, max_examples=400, derandomize=False, print_blob=True)
@given(st.sampled_from((("",), ("p1",), ("p1", "p2"))), ROWS, RECORDS, HELD, MODES, st.booleans())
def test_long_what_stays_in_the_warehouse(
    opened: WarehouseHome,
    partitions: tuple[str, ...],
    rows: list[Row],
    records: list[Record],
    held: list[Held],
    mode: Mode,
    repeated: bool,
) -> None:
    stayed(opened, partitions, rows, records, held, mode, repeated=repeated)


def stayed(
    home: WarehouseHome,
    partitions: tuple[str, ...],
    rows: list[Row],
    records: list[Record],
    held: list[Held],
    mode: Mode,
    *,
    repeated: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        place = Place(Path(folder), partitions)
        state = situation(Path(folder), partitions[0], rows, records, held, repeated=repeated)
        manifest, source = kept(place, state), place.source(state.model)
        leave_nothing_out(patch)
        found = place.plan(source, manifest, mode)
        changes = f"fold-{uuid.uuid4().hex}"
        with connect(place.folder) as connection:
            Home(place.folder).attach(connection, manifest)
            for kind in ("snapshot", "held"):
                connection.execute(f"CREATE TEMP VIEW no_{kind} AS SELECT * FROM {kind} WHERE false")
                write_changes(connection, kind, f"no_{kind}", kind, home.folder / changes)
            shared, several = (repeats(connection, "snapshot", column) for column in ("match", "key"))
        there = replace(manifest, snapshot=changes, held="", shared=shared, several=several)
        assert found == place.plan(in_warehouse(home, source), there, mode, home)


def in_warehouse(home: WarehouseHome, source: Source) -> Source:
    """The model as tables."""
    tables: dict[str, str] = {}
    types: dict[str, str] = {}
    with home.open() as store, store.transaction():
        store.prepare_schema()
        for partition, (path,) in source.files.items():
            tables[partition] = f"people_{uuid.uuid4().hex[:12]}"
            store.execute(f"CREATE TABLE {SCHEMA}.{tables[partition]} (id VARCHAR, email VARCHAR, name VARCHAR)")
            store.ingest(path, tables[partition], SCHEMA)
            types = dict(store.columns(tables[partition]))
    return replace(source, files={}, tables=tables, types=types, inputs=source.columns)


@pytest.mark.parametrize("name", ["rowid", "RowID"])
def test_a_column_with_the_name_of_duckdbs_row_number_mixes_up_no_rows(tmp_path: Path, name: str) -> None:
    keys = [str(number) for number in range(6)]
    columns = {"id": keys, "email": [f"{key}@x.org" for key in keys], name: ["7"] * 6}
    pq.write_table(pa.table(columns), tmp_path / "model.parquet")
    source = Source({"": [tmp_path / "model.parquet"]}, ("id",), ("email",), ("exact",), ("email", name), "m")
    with connect(tmp_path) as connection:
        load_model(connection, "people", source)
        digests = dict(connection.execute(f"SELECT id, {digest_text(source, source.columns)} FROM files").fetchall())
    records = [
        {
            "key": key,
            "match": f"{key}@x.org",
            "partition": "",
            "destination_id": f"id-{key}",
            "source_digest": "0" * 32 if key in ("1", "2") else digests[key],
            "payload_digest": "p",
            "number": 1,
        }
        for key in keys
    ]
    place = Place(tmp_path, ("",))
    manifest = Manifest(1, 1, place.keep("snapshot-1.parquet", SNAPSHOT_COLUMNS, records), rows=6)
    found = planner.diff(Home(tmp_path), manifest, source, Settings("people", Mode.UPSERT), tmp_path / "plan")
    ((path, candidates),) = found.shards
    sent = [(row["key"], row["c:email"]) for row in pq.read_table(path).to_pylist()]
    assert (candidates, sorted(sent)) == (2, [("1", "1@x.org"), ("2", "2@x.org")])
