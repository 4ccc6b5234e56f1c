"""Change detection as SQL: a model version against the snapshot, cut into immutable shards.

Rows that did not change never reach Python. The only rows that do here are those whose match value passes from one
primary key to another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from integrations_dagster.planner.candidates import (
    WAITING,
    Release,
    Settings,
    cursor_type,
    find_candidates,
    guard_deletions,
    judge,
    restrict,
)
from integrations_dagster.planner.computed import problem_of
from integrations_dagster.planner.model import KEY, PLACE, Source, check_keys, load_model, scalar
from integrations_dagster.planner.narrowing import Stayed, load_rest
from integrations_dagster.planner.state import Home, Manifest, connect, literal, quote, to_disk
from integrations_dagster.planner.warehouse_diff import attach
from integrations_dagster.planner.warehouse_home import WarehouseHome
from integrations_dagster.vocabulary import Change, Counts, HeldStatus, Mode, Status

IN_ORDER = 100_000
"""Candidates up to which those of a wave are put in the order of their keys: a person finds them in a request, and the
same plan makes the same requests. To sort more of them takes a tenth of a plan's time."""


@dataclass(slots=True)
class Diff:
    """What differs.

    Attributes:
        counts: Counts of the plan.
        shards: (file, candidates) of each shard.
        left_behind: Records that keep an old match value, because the mode deletes nothing and their id is unknown or
            their row has taken over another record.
        known: Records in the snapshot.
        held: Held rows of the model by why they wait: "waiting", "parked", "in_doubt".
        released: Candidates that were held and are sent because the run releases them.
        unheld: Keys that were to be released and are not held.
        cursor: Of a model with a cursor: DuckDB's type of the column, and its greatest value as text ("" without rows).
        unknown: Rows of the model whose record has unknown digests: a resync, or requests without an answer.
        still_held: Keys that were to be released, are held, and are not sent: in doubt where the release does not say
            so, held before its time or for another reason, or without a row in the model.
    """

    counts: Counts
    shards: list[tuple[Path, int]] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    known: int = 0
    held: dict[str, int] = field(default_factory=dict)
    released: int = 0
    cursor: tuple[str, str] | None = None
    unknown: int = 0
    unheld: list[str] = field(default_factory=list)
    still_held: list[str] = field(default_factory=list)


def diff(home: Home, manifest: Manifest, source: Source, settings: Settings, folder: Path) -> Diff:
    """Find the candidates and write them to `folder`: `shard-<n>.parquet`, `outcomes-plan-0.parquet` (rows invalid for
    their keys), `forgotten.parquet` (held rows that left the model), `ended.parquet` (mode delete: deletions whose rows
    have left the model; mode append: deliveries older than the dedupe window), `departed.parquet` (of a partitioned
    model, in modes that remove nothing: records whose rows have left it), `pending.parquet` (rows that are not
    settled yet, with their cursor values).

    Raises:
        Misconfigured: The primary key is not unique, or a field's expression does not fit the model.
        GuardTripped: A mirror or a deletion would remove more than its limit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with connect(folder) as connection:
        problems, stayed = _load(connection, home, manifest, source, settings, folder)
        check_keys(connection, settings.sync, source)
        counts = Counts(queried=scalar(connection, "SELECT count(*) FROM model") + stayed.rows)
        compared = ", ".join(map(literal, source.partitions))
        judge(connection, settings, bool(source.match), compared, source.cursor)
        verdicts = dict(connection.execute("SELECT verdict, count(*) FROM compared GROUP BY verdict").fetchall())
        held = {why: verdicts.get(why, 0) for why in WAITING}
        counts.held = sum(held.values())
        counts.invalid = scalar(connection, "SELECT count(*) FROM bad") + verdicts.get("invalid", 0)
        counts.unchanged = verdicts.get("unchanged", 0) + stayed.rows
        left_behind = find_candidates(connection, settings, bool(source.match), source.partitions, stayed.keys)
        result = Diff(counts, left_behind=left_behind, known=manifest.rows, held=held)
        result.unknown = scalar(
            connection, "SELECT count(*) FROM compared WHERE record_match IS NOT NULL AND NOT known"
        )
        if source.cursor:
            newest = connection.execute("SELECT CAST(max(cursor) AS VARCHAR) FROM model").fetchall()[0][0]
            result.cursor = (cursor_type(connection), newest or "")
        differing = verdicts.get("added", 0) + verdicts.get("changed", 0)
        if source.cursor:
            _write_pending(connection, source, folder, problems)
        kept = f"SELECT count(*) FROM candidates WHERE change <> '{Change.REMOVED}'"
        if settings.partial:
            restrict(connection, settings)
        guard_deletions(connection, settings)
        counts.excluded = differing - scalar(connection, kept)
        if settings.release is not None:
            _tell_release(connection, settings.release, result)
        for change, count in connection.execute("SELECT change, count(*) FROM candidates GROUP BY change").fetchall():
            setattr(counts, change, count)
        assert counts.adds_up(), counts
        _write_shards(connection, source, settings, folder, result, problems)
        _write_bad(connection, folder)
        if not settings.partial and source.partitions == [""] and source.cursor is None:
            _write_forgotten(connection, folder)
        if not settings.partial and settings.mode in (Mode.DELETE, Mode.APPEND):
            _write_ended(connection, settings, folder, source.partitions)
        # A mirror removes them, but for those of invalid rows.
        elif not settings.partial and not settings.removes and _in_parts(source):
            _write_departed(connection, folder, source.partitions)
    return result


def _load(
    connection: duckdb.DuckDBPyConnection,
    home: Home,
    manifest: Manifest,
    source: Source,
    settings: Settings,
    folder: Path,
) -> tuple[frozenset[str], Stayed]:
    """Make `model`, `files`, `snapshot` and `held` readable: all of them, or what leaves the warehouse; of an
    embedded home what may differ, and what has to do with it.

    Returns:
        What `load_model` returns, and what is left out.
    """
    if not isinstance(home, WarehouseHome):
        home.attach(connection, manifest)
        return load_rest(connection, settings.sync, source, removes=settings.removes)
    left = home.leave(manifest, source, settings.sync, folder, count_keys=settings.removes)
    attach(connection, left)
    return load_model(connection, settings.sync, source, left.rows), Stayed(left.stayed, left.stayed_keys)


def _tell_release(connection: duckdb.DuckDBPyConnection, release: Release, result: Diff) -> None:
    result.released = scalar(connection, "SELECT count(*) FROM candidates")
    asked = list(dict.fromkeys(release.keys))
    where = connection.execute(
        f"""SELECT a.key, h.key IS NOT NULL AS held FROM (SELECT unnest(CAST(? AS VARCHAR[])) AS key) a
        LEFT JOIN held h ON h.key = a.key AND h.status <> '{HeldStatus.INVALID}'
        ANTI JOIN candidates c ON c.key = a.key""",
        [asked],
    ).fetchall()
    held = {key for key, is_held in where if is_held}
    unheld = {key for key, is_held in where if not is_held}
    result.still_held = [key for key in asked if key in held]
    result.unheld = [key for key in asked if key in unheld]


def _write_shards(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    settings: Settings,
    folder: Path,
    result: Diff,
    problems: frozenset[str],
) -> None:
    total = scalar(connection, "SELECT count(*) FROM candidates")
    if not total:
        return
    count = max(1, min(settings.shards, total // settings.shard_rows))
    columns = "".join(f", f.{quote(column)} AS {quote('c:' + column)}" for column in source.columns)
    columns += "".join(f", f.{quote(problem_of(name))}" for name in sorted(problems))
    shard = f"CASE WHEN linked THEN 0 ELSE CAST(hash(match) % {count} AS INTEGER) END"
    sizes = dict(connection.execute(f"SELECT {shard} AS s, count(*) FROM candidates GROUP BY s ORDER BY s").fetchall())
    ((sought, placed),) = connection.execute(
        f"SELECT count(*), count(place) FROM candidates WHERE change <> '{Change.REMOVED}'"
    ).fetchall()
    row = f"f.{PLACE} = c.place" if placed and placed == sought else f"f.{quote(KEY)} = c.key"
    waves = scalar(connection, "SELECT max(wave) FROM candidates")
    order = "ORDER BY c.wave, c.action, c.key, c.match" if waves or total <= IN_ORDER else ""
    for index, rows in sizes.items():
        path = folder / f"shard-{index:03d}.parquet"
        connection.execute(
            f"""COPY (
            SELECT c.key, c.match, c.partition, c.change, c.action, c.wave, c.follows, c.again, c.destination_id,
                c.digest AS source_digest, c.payload_digest AS known_payload_digest{columns}
            FROM (SELECT * FROM candidates WHERE {shard} = {index}) c
            LEFT JOIN files f ON c.change <> '{Change.REMOVED}' AND {row} {order}
            ) TO {literal(str(path))} (FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE 20000)"""
        )
        to_disk(path)
        result.shards.append((path, rows))


def _write_bad(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    path = folder / "outcomes-plan-0.parquet"
    query = f"""
        SELECT CAST(-1 AS BIGINT) AS ordinal, coalesce(key, '') AS key, coalesce(match, '') AS match, partition,
            '{Change.CHANGED}' AS change, '{Status.INVALID}' AS status, digest AS source_digest, '' AS payload_digest,
            code, reason, false AS remember
        FROM bad
        UNION ALL BY NAME
        SELECT -1 AS ordinal, c.key, c.match, c.partition, '{Change.CHANGED}' AS change, '{Status.INVALID}' AS status,
            c.digest AS source_digest, '' AS payload_digest, h.code, h.reason, true AS remember
        FROM compared c JOIN held h ON h.key = c.key WHERE c.verdict = 'invalid'"""
    _write_found(connection, query, path)


def _write_forgotten(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    query = """SELECT h.key FROM held h ANTI JOIN model m ON m.key = h.key ANTI JOIN snapshot s ON s.key = h.key
        WHERE h.status <> 'in_doubt'"""
    _write_found(connection, query, folder / "forgotten.parquet")


def _write_pending(
    connection: duckdb.DuckDBPyConnection, source: Source, folder: Path, problems: frozenset[str]
) -> None:
    """Rows that the cursor must not pass before they are settled. What is parked, or invalid by itself, is settled
    until it changes, and then its cursor changes too. `unfound`: a lookup found nothing, which is not the row's doing,
    so that being invalid does not settle it."""
    query = """SELECT m.key, m.cursor, false AS unfound FROM model m WHERE m.key IN (SELECT key FROM candidates)
            OR m.key IN (SELECT key FROM compared WHERE verdict IN ('waiting', 'in_doubt'))
        UNION ALL SELECT key, cursor, false FROM bad WHERE code = 'DOUBLE_MATCH_VALUE'"""
    if found := sorted(problems & {lookup.name for lookup in source.lookups}):
        assert source.cursor is not None
        query += f""" UNION ALL
            SELECT key, cursor, true FROM (
                SELECT "__key" AS key, {quote(source.cursor)} AS cursor FROM files
                WHERE {" OR ".join(f"{quote(problem_of(name))} IS NOT NULL" for name in found)}
            ) WHERE key IN (SELECT key FROM candidates UNION SELECT key FROM compared WHERE verdict = 'invalid')"""
    connection.execute(f"COPY ({query}) TO {literal(str(folder / 'pending.parquet'))} (FORMAT parquet)")


def _write_ended(
    connection: duckdb.DuckDBPyConnection, settings: Settings, folder: Path, partitions: list[str]
) -> None:
    """Records that the state need not keep. Of mode append: what was delivered longer ago than the dedupe window, and
    is not in the model; with a cursor that is what no later query returns, unless it comes late."""
    compared = ", ".join(literal(partition) for partition in partitions)
    forgotten = f"s.number <= {settings.forget_to}" if settings.mode is Mode.APPEND else "true"
    query = f"""SELECT s.key, s.match, s.number FROM snapshot s
        ANTI JOIN model m ON m.key = s.key AND m.match = s.match WHERE s.partition IN ({compared}) AND {forgotten}"""
    _write_found(connection, query, folder / "ended.parquet")


def _in_parts(source: Source) -> bool:
    """Whether match values pass between partitions that are compared one by one."""
    return bool(source.match) and source.partitions != [""] and source.cursor is None


def _write_departed(connection: duckdb.DuckDBPyConnection, folder: Path, partitions: list[str]) -> None:
    """Records of the partitions compared that stay at the destination, and that no row of the model claims: the row
    has left the model, or has another match value and is settled with it, or is invalid. (A row that is sent, or
    waits, may yet rename its record.)"""
    compared = ", ".join(literal(partition) for partition in partitions)
    query = f"""SELECT s.key, s.match, s.number FROM snapshot s ANTI JOIN model m ON m.key = s.key
        WHERE s.partition IN ({compared})
        UNION ALL
        SELECT o.key, o.record_match, o.number FROM others o JOIN compared c ON c.key = o.key
        WHERE o.record_partition IN ({compared}) AND c.verdict = 'unchanged'
        UNION ALL
        SELECT s.key, s.match, s.number FROM snapshot s JOIN bad b ON b.key = s.key AND b.match IS DISTINCT FROM s.match
        WHERE s.partition IN ({compared})"""
    _write_found(connection, query, folder / "departed.parquet")


def _write_found(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """A file of what a query finds; none where it finds nothing."""
    if scalar(connection, f"SELECT count(*) FROM ({query})"):
        connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet)")
