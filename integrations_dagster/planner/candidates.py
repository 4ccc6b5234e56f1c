"""Which rows may differ at the destination, and how each is delivered: tables in DuckDB, one step after the other."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import duckdb

from integrations_dagster.planner.model import scalar
from integrations_dagster.planner.moves import Mover, resolve
from integrations_dagster.planner.state import literal
from integrations_dagster.vocabulary import Action, Change, GuardTripped, Mode

LIFT = "If the model is right, launch the run with allow_removals: true, or raise removal_limit."
WAITING = ("waiting", "parked", "in_doubt")
"""Why a held row is no candidate: its time has not come, it was rejected too often, nobody knows what became of it."""


ACTION_OF = {
    Mode.INSERT: Action.CREATE,
    Mode.UPDATE: Action.MODIFY,
    Mode.UPSERT: Action.UPSERT,
    Mode.MIRROR: Action.UPSERT,
    Mode.DELETE: Action.DELETE,
    Mode.APPEND: Action.CREATE,
}
"""How a row of the model is delivered, unless its match value moves."""


@dataclass(frozen=True, slots=True)
class Release:
    """Which held rows a run sends as if they were not held; it sends nothing else. All that is given must fit.

    Attributes:
        keys: Primary keys; empty for any.
        since: Held since then or later, seconds since the epoch; None for any.
        reason: The row's code, or part of its reason in any case; "" for any.
        in_doubt: Whether rows in doubt may be sent again too, which may double them.
    """

    keys: tuple[str, ...] = ()
    since: float | None = None
    reason: str = ""
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """How to cut and guard.

    Attributes:
        sync: Name, for messages.
        mode: What is done with differences.
        removal_limit: mirror: share (0 to 1) of the records in the partitions compared. A number above 1, in delete
            always: records.
        allow_removals: Whether the removal guard is lifted for this run.
        shards: Shards at the most.
        shard_rows: Candidates below which a further shard is not worth its step.
        limit: Candidates at the most, or None.
        keys: Only these primary keys, if any.
        cursor: append: the farthest that the sync's cursor ever was; every row before it was settled once. "" for none.
        floor: append: the newest cursor value of what was delivered longer ago than the dedupe window; "" for nothing.
        forget_to: append: deliveries with batch numbers up to this one are longer ago than the dedupe window.
        now: The ledger's clock, seconds since the epoch.
        renames: Whether a record whose match value changes is renamed by its id; else it is another record, and what it
            was is removed (mirror) or left behind.
        resend_in_doubt: Whether rows in doubt are candidates like any other.
        release: Held rows to send, and nothing else; None for a run like any other.
    """

    sync: str
    mode: Mode
    removal_limit: float = 0.2
    allow_removals: bool = False
    shards: int = 4
    shard_rows: int = 2000
    limit: int | None = None
    keys: tuple[str, ...] = ()
    cursor: str = ""
    floor: str = ""
    forget_to: int = 0
    now: float = field(default_factory=time.time)
    renames: bool = True
    resend_in_doubt: bool = False
    release: Release | None = None

    @property
    def removes(self) -> bool:
        """Whether rows missing from the model are removed at the destination."""
        return self.mode is Mode.MIRROR

    @property
    def moves(self) -> bool:
        """Whether a record follows its row when the match value changes: the records are the sync's own."""
        return self.mode in (Mode.UPSERT, Mode.MIRROR)

    @property
    def action(self) -> Action:
        """How a row is delivered, unless its match value moves."""
        return ACTION_OF[self.mode]

    @property
    def partial(self) -> bool:
        return self.limit is not None or bool(self.keys) or self.release is not None


def _free(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Table `freed`: keys of the held rows that are sent as if they were not held."""
    release = settings.release
    freed = f"SELECT key, action FROM held WHERE {settings.resend_in_doubt} AND status = 'in_doubt'"
    if release is not None:
        freed = """SELECT key, action FROM held
            WHERE (status IN ('rejected', 'parked') OR $in_doubt AND status = 'in_doubt')
                AND (len($keys) = 0 OR list_contains($keys, key)) AND since >= coalesce($since, since)
                AND ($reason = '' OR code = $reason OR contains(lower(reason), lower($reason)))"""
    connection.execute(
        f"CREATE TEMP TABLE freed AS {freed}",
        {
            "in_doubt": release.in_doubt,
            "keys": list(release.keys),
            "since": release.since,
            "reason": release.reason,
        }
        if release is not None
        else None,
    )


def judge(
    connection: duckdb.DuckDBPyConnection, settings: Settings, has_match: bool, partitions: str, cursor: str | None
) -> None:
    """Tables `bad` (rows invalid for their keys or cursor) and `compared` (all other rows, with a verdict)."""
    # No later query would return a row without a cursor value.
    no_cursor = "m.cursor IS NULL" if cursor else "false"
    _free(connection, settings)
    connection.execute("SET VARIABLE now = ?", [settings.now])
    doubles = (
        # Numbers first: they take less time than texts, and mostly there are none.
        """SELECT match, min(key) AS first_key, max(key) AS last_key
        FROM model SEMI JOIN (
            SELECT hash(match) AS h FROM model WHERE key IS NOT NULL AND match IS NOT NULL
            GROUP BY h HAVING count(*) > 1
        ) repeated ON repeated.h = hash(match)
        WHERE key IS NOT NULL AND match IS NOT NULL GROUP BY match HAVING count(*) > 1"""
        if has_match
        else "SELECT NULL::VARCHAR AS match, NULL::VARCHAR AS first_key, NULL::VARCHAR AS last_key WHERE false"
    )
    connection.execute(f"CREATE TEMP TABLE doubles AS {doubles}")
    # A partitioned model is compared in parts: the rows of the other parts are known by their records, a row by the
    # newest of its key that was acknowledged. A record of no partition is no row's.
    elsewhere = (
        f"""SELECT m.key, min(s.key) AS other, arg_min(s.partition, s.key) AS partition
        FROM model m JOIN snapshot s ON s.match = m.match AND s.key <> m.key AND s.partition NOT IN ({partitions})
        ANTI JOIN snapshot newer
            ON newer.key = s.key AND newer.number > s.number AND newer.source_digest IS NOT NULL
        WHERE m.key IS NOT NULL AND s.key NOT IN (SELECT key FROM model WHERE key IS NOT NULL) GROUP BY m.key"""
        if has_match and partitions != "''"
        else "SELECT NULL::VARCHAR AS key, NULL::VARCHAR AS other, NULL::VARCHAR AS partition WHERE false"
    )
    connection.execute(f"CREATE TEMP TABLE elsewhere AS {elsewhere}")
    connection.execute(
        f"""CREATE TEMP TABLE bad AS SELECT m.*,
            CASE WHEN m.key IS NULL THEN 'NULL_KEY' WHEN m.match IS NULL THEN 'NO_MATCH_VALUE'
                WHEN {no_cursor} THEN 'NULL_CURSOR' ELSE 'DOUBLE_MATCH_VALUE' END AS code,
            CASE WHEN m.key IS NULL THEN 'The primary key is null.'
                WHEN m.match IS NULL THEN 'The match value is null or empty.'
                WHEN {no_cursor} THEN 'The cursor column is null.'
                WHEN d.match IS NULL THEN 'The row with the key ' || e.other || ' of partition ' || e.partition
                    || ' was delivered with the same match value; this one is not sent.'
                ELSE 'The row with the key ' || CASE WHEN d.first_key = m.key THEN d.last_key ELSE d.first_key END
                    || ' has the same match value; neither is sent.' END AS reason
        FROM model m LEFT JOIN doubles d ON d.match = m.match LEFT JOIN elsewhere e ON e.key = m.key
        WHERE m.key IS NULL OR m.match IS NULL OR {no_cursor} OR d.match IS NOT NULL OR e.key IS NOT NULL"""
    )
    connection.execute(
        "CREATE TEMP VIEW claims AS SELECT key, match FROM model WHERE key IS NOT NULL AND match IS NOT NULL"
    )
    _pair(connection)
    # A rejected removal is a matter of its own, beside what becomes of a row of the model.
    removal = "coalesce(h.action, '') = 'delete'" if settings.mode is not Mode.DELETE else "false"
    # Where nothing is joined to them, rows are judged faster anew than they are written and read.
    joined = scalar(connection, "SELECT (SELECT count(*) FROM held) + (SELECT count(*) FROM others)")
    connection.execute(
        f"""CREATE TEMP {"TABLE" if joined else "VIEW"} compared AS
        WITH waiting AS (
            SELECT h.*, h.source_digest = g.digest AND NOT {removal} AS same
            FROM held h JOIN judged g ON g.key = h.key
            ANTI JOIN older o ON o.key = h.key AND {removal} AND h.status IN ('rejected', 'parked')
        )
        SELECT g.key, g.match, g.partition, g.digest, g.place,
            coalesce(g.record_match, older.record.match) AS record_match,
            CASE WHEN g.record_match IS NULL THEN older.record.destination_id ELSE g.destination_id END
                AS destination_id,
            -- What a request in doubt did is not known, so no payload is equal to it.
            CASE WHEN h.status IS DISTINCT FROM 'in_doubt' THEN g.payload_digest END AS payload_digest,
            CASE
                WHEN freed.key IS NULL AND h.status = 'in_doubt' THEN 'in_doubt'
                WHEN freed.key IS NULL AND h.status = 'parked' AND h.same THEN 'parked'
                WHEN freed.key IS NULL AND h.status = 'rejected' AND h.same AND h.not_before > getvariable('now')
                    THEN 'waiting'
                WHEN h.status = 'invalid' AND h.same THEN 'invalid'
                WHEN g.source_digest = g.digest AND g.record_partition = g.partition AND h.key IS NULL
                    THEN 'unchanged'
                WHEN g.record_match IS NULL AND older.key IS NULL THEN 'added'
                ELSE 'changed' END AS verdict,
            coalesce(h.status IN ('rejected', 'parked') AND h.same, false) AS again,
            coalesce(g.source_digest IS NOT NULL OR older.known, false) AS known
        FROM judged g
        LEFT JOIN older ON older.key = g.key
        LEFT JOIN waiting h ON h.key = g.key
        LEFT JOIN freed ON freed.key = g.key"""
    )


def _pair(connection: duckdb.DuckDBPyConnection) -> None:
    """View `judged` (each row that is not `bad`, with its own record), tables `others` (rows with records of their key
    that have another match value) and `older` (of each such key the newest of those records).

    A key's own record is the one with its match value. The snapshot is read once, because it may be large.
    """
    bad = scalar(connection, "SELECT count(*) FROM bad")
    good = "model m ANTI JOIN bad b ON b.key = m.key WHERE m.key IS NOT NULL" if bad else "model"
    connection.execute(
        f"""CREATE TEMP TABLE paired AS
        SELECT g.key, g.match, g.partition, g.digest, g.place, s.match AS record_match, s.partition AS record_partition,
            s.destination_id, s.source_digest, s.payload_digest, s.number
        FROM (SELECT * FROM {good}) g LEFT JOIN snapshot s ON s.key = g.key;
        CREATE TEMP TABLE others AS SELECT * FROM paired WHERE record_match <> match;
        CREATE TEMP TABLE older AS
        SELECT key, arg_max({{'match': record_match, 'destination_id': destination_id}}, number) AS record,
            bool_or(source_digest IS NOT NULL) AS known
        FROM others GROUP BY key"""
    )
    judged = "SELECT * FROM paired"
    if scalar(connection, "SELECT count(*) FROM others"):
        own = "SELECT key FROM paired WHERE record_match = match"
        judged += f""" WHERE record_match = match OR record_match IS NULL
            UNION ALL BY NAME
            SELECT DISTINCT key, match, partition, digest, place FROM others WHERE key NOT IN ({own})"""
    connection.execute(f"CREATE TEMP VIEW judged AS {judged}")


def find_candidates(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    has_match: bool,
    partitions: list[str],
    stayed_keys: int = 0,
) -> list[str]:
    # A record whose digests are unknown was sent by a request that may be repeated: it may not be there, and is created
    # again.
    only = "AND NOT known" if settings.action is Action.CREATE else ""
    destination_id = {
        # The record is the one that has the match value now, whatever had it when the row was sent last.
        Mode.UPDATE: "CASE WHEN record_match = match THEN destination_id END",
        # A deleted record that was created again has another id.
        Mode.DELETE: "CAST(NULL AS VARCHAR)",
    }.get(
        settings.mode,
        "destination_id" if settings.renames else "CASE WHEN record_match = match THEN destination_id END",
    )
    connection.execute(
        f"""CREATE TEMP TABLE candidates AS SELECT key, match, partition, digest, {destination_id} AS destination_id,
            payload_digest, verdict AS change, '{settings.action}' AS action, 0 AS wave,
            false AS linked, CAST(NULL AS VARCHAR) AS follows, again, place
        FROM compared WHERE verdict IN ('added', 'changed') {only}"""
    )
    if settings.cursor and settings.floor:
        _exclude_late(connection, settings)
    if not settings.moves:
        return []
    # Records that a candidate's key has under other match values than its row has now.
    connection.execute(
        f"""CREATE TEMP TABLE strays AS
        SELECT o.key, o.record_match AS match, o.record_partition AS partition, o.destination_id, o.source_digest,
            o.payload_digest, o.number, c.match AS new_match, c.destination_id AS own_id
        FROM others o JOIN compared c ON c.key = o.key WHERE {has_match}"""
    )
    left_behind: list[str] = []
    if has_match:
        _move(connection)
        left_behind = [
            row[0]
            for row in connection.execute(
                """SELECT s.match FROM strays s JOIN candidates c ON c.key = s.key
                ANTI JOIN claims claim ON claim.match = s.match
                WHERE c.action = 'upsert' AND s.source_digest IS NOT NULL ORDER BY s.match"""
            ).fetchall()
        ]
    if settings.removes and (not settings.partial or settings.release is not None):
        _remove(connection, settings, partitions, stayed_keys)
        left_behind = []
    return left_behind


def _exclude_late(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Drop events so old that it is not known any more whether they were delivered.

    Every row before the cursor was settled once, and what is as old as the floor may have been forgotten since. A row
    that is held was not delivered, and its key is known.
    """
    kind = cursor_type(connection)
    connection.execute(
        f"""DELETE FROM candidates WHERE key IN (
            SELECT key FROM model WHERE cursor < CAST($cursor AS {kind}) AND cursor <= CAST($floor AS {kind})
        ) AND key NOT IN (SELECT key FROM held) AND key NOT IN (SELECT key FROM snapshot)""",
        {"cursor": settings.cursor, "floor": settings.floor},
    )


def cursor_type(connection: duckdb.DuckDBPyConnection) -> str:
    """DuckDB's type of the model's cursor column."""
    row = connection.execute("DESCRIBE SELECT cursor FROM model").fetchone()
    assert row is not None
    return str(row[1])


def _move(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        """CREATE TEMP TABLE wanting AS
        SELECT c.key, c.destination_id, max(s.number) AS number
        FROM candidates c JOIN strays s ON s.key = c.key AND s.destination_id = c.destination_id GROUP BY ALL;
        CREATE TEMP TABLE renaming AS SELECT key FROM wanting"""
    )
    if scalar(connection, "SELECT count(*) FROM wanting"):
        # Two keys may be one record at the destination: after a late answer, or where contacts were merged. One of them
        # renames it, and none if a row has it as it is: the others would be renamed with it, and lost.
        connection.execute(
            """CREATE OR REPLACE TEMP TABLE renaming AS
            SELECT w.key FROM wanting w ANTI JOIN (
                SELECT s.destination_id, s.key FROM snapshot s JOIN claims c ON c.key = s.key AND c.match = s.match
            ) has ON has.destination_id = w.destination_id AND has.key <> w.key
            QUALIFY row_number() OVER (PARTITION BY w.destination_id ORDER BY w.number DESC, w.key) = 1;
            UPDATE candidates SET destination_id = NULL
            WHERE key IN (SELECT key FROM wanting) AND key NOT IN (SELECT key FROM renaming)"""
        )
    connection.execute(
        """CREATE TEMP TABLE holding AS
        SELECT c.key, s.key AS holder FROM candidates c JOIN snapshot s ON s.match = c.match AND s.key <> c.key;
        CREATE TEMP TABLE linked AS
        SELECT key FROM holding
        UNION SELECT holder FROM holding SEMI JOIN candidates c ON c.key = holding.holder
        UNION SELECT s.key FROM strays s JOIN compared claim ON claim.match = s.match AND claim.key <> s.key
            SEMI JOIN candidates c ON c.key = s.key"""
    )
    connection.execute(f"UPDATE candidates SET action = '{Action.UPDATE}' WHERE key IN (SELECT key FROM renaming)")
    rows = connection.execute(
        """SELECT l.key, list(h.holder ORDER BY h.holder) FILTER (h.holder IS NOT NULL), bool_or(r.key IS NOT NULL)
        FROM linked l LEFT JOIN holding h ON h.key = l.key LEFT JOIN renaming r ON r.key = l.key
        GROUP BY l.key ORDER BY l.key"""
    ).fetchall()
    if not rows:
        return
    movers = {key: Mover(key, tuple(holders or ()), renames) for key, holders, renames in rows}
    decided = resolve(movers)
    connection.execute("CREATE TEMP TABLE decided (key VARCHAR, action VARCHAR, wave INTEGER, follows VARCHAR)")
    connection.executemany(
        "INSERT INTO decided VALUES (?, ?, ?, ?)",
        [[key, str(move.action), move.wave, move.follows] for key, move in decided.items()],
    )
    connection.execute(
        """UPDATE candidates SET action = d.action, wave = d.wave, follows = d.follows, linked = true
        FROM decided d WHERE d.key = candidates.key"""
    )


def _remove(connection: duckdb.DuckDBPyConnection, settings: Settings, partitions: list[str], stayed_keys: int) -> None:
    # One of no partition was left by another mode, when its row left the model.
    where = f"(s.partition IN ({', '.join(map(literal, partitions))}) OR s.partition IS NULL)"
    # A record that another row's match value claims is handed over, not deleted: also under another name of it, and
    # while the claim is invalid; nor is one deleted that another row has, or renames. One record is removed once, even
    # where two of its names are in doubt. A stray is removed only after the row that replaces it was accepted, and
    # never while its key renames it or waits.
    only = "SEMI JOIN freed ON freed.key = g.key AND freed.action = 'delete'" if settings.release is not None else ""
    connection.execute(
        f"""CREATE TEMP TABLE removals AS
        WITH gone AS (
            SELECT s.*, true AS missing, 0 AS wave FROM snapshot s ANTI JOIN model m ON m.key = s.key WHERE {where}
            UNION ALL BY NAME
            SELECT s.key, s.match, s.partition, s.destination_id, s.source_digest, s.payload_digest, s.number,
                false AS missing, coalesce(c.wave, 0) + 1 AS wave
            FROM strays s JOIN compared v ON v.key = s.key LEFT JOIN candidates c ON c.key = s.key
            WHERE v.verdict = 'unchanged' OR c.action = '{Action.UPSERT}'
        )
        SELECT * FROM gone g
        ANTI JOIN claims claim ON claim.match = g.match AND claim.key <> g.key
        ANTI JOIN (
            SELECT s.destination_id, c.key FROM snapshot s JOIN claims c ON c.match = s.match
            WHERE s.destination_id IS NOT NULL
        ) same ON same.destination_id = g.destination_id AND same.key <> g.key
        ANTI JOIN (
            SELECT destination_id, key FROM compared WHERE record_match = match
            UNION ALL SELECT destination_id, key FROM candidates WHERE action = '{Action.UPDATE}'
        ) has ON has.destination_id = g.destination_id AND has.key <> g.key
        ANTI JOIN (
            SELECT key FROM held WHERE (status = 'in_doubt' OR action = 'delete' AND (
                status = 'parked' OR status = 'rejected' AND not_before > getvariable('now')))
                AND key NOT IN (SELECT key FROM freed)
        ) waiting ON waiting.key = g.key
        {only}
        QUALIFY g.destination_id IS NULL OR row_number() OVER (PARTITION BY g.destination_id ORDER BY g.number DESC) = 1
        """
    )
    # What the snapshot leaves out is in the model.
    total = scalar(connection, f"SELECT count(DISTINCT key) FROM snapshot s WHERE {where}") + stayed_keys
    missing = scalar(connection, "SELECT count(DISTINCT key) FROM removals WHERE missing")
    rows = settings.removal_limit > 1
    over = missing > settings.removal_limit if rows else total and missing / total > settings.removal_limit
    if over and not settings.allow_removals:
        limit = f"{settings.removal_limit:,.0f}" if rows else f"{settings.removal_limit:.0%}"
        raise GuardTripped(
            f"Sync {settings.sync!r} would remove {missing:,} of {total:,} records ({missing / total:.0%}), more than "
            f"its removal_limit of {limit}; nothing was sent.",
            LIFT,
        )
    connection.execute(
        f"""UPDATE candidates SET linked = true WHERE key IN (SELECT key FROM removals WHERE NOT missing);
        INSERT INTO candidates
        SELECT r.key, r.match, coalesce(r.partition, {literal(partitions[0])}), coalesce(r.source_digest, ''),
            r.destination_id, NULL, '{Change.REMOVED}', '{Action.DELETE}', r.wave, NOT r.missing,
            CASE WHEN NOT r.missing AND c.key IS NOT NULL THEN r.key END, h.key IS NOT NULL, NULL
        FROM removals r LEFT JOIN candidates c ON c.key = r.key
            LEFT JOIN held h ON h.key = r.key AND h.status IN ('rejected', 'parked')"""
    )


def guard_deletions(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Mode delete: refuse to delete more records than a run may, because a model may list everything by mistake.

    Raises:
        GuardTripped: It would.
    """
    if settings.mode is not Mode.DELETE or settings.allow_removals:
        return
    # A row that was deleted before is a candidate where its digest or partition differs, and is not sent.
    count = scalar(connection, "SELECT count(*) FROM candidates WHERE payload_digest IS NULL")
    if count > settings.removal_limit:
        raise GuardTripped(
            f"Sync {settings.sync!r} would delete {count:,} records, more than its removal_limit of "
            f"{settings.removal_limit:,.0f}; nothing was sent.",
            LIFT,
        )


def restrict(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Keep only the candidates asked for."""
    if settings.release is not None:
        connection.execute("DELETE FROM candidates WHERE key NOT IN (SELECT key FROM freed)")
    if settings.keys:
        connection.execute(
            "DELETE FROM candidates WHERE key NOT IN (SELECT unnest(CAST(? AS VARCHAR[])))", [list(settings.keys)]
        )
    if settings.limit is not None:
        connection.execute(
            "DELETE FROM candidates WHERE key NOT IN (SELECT key FROM candidates ORDER BY wave, key LIMIT ?)",
            [settings.limit],
        )
    # Without the row that it follows a row cannot be delivered.
    while connection.execute(
        """DELETE FROM candidates WHERE follows IS NOT NULL AND follows NOT IN (SELECT key FROM candidates)
        RETURNING key"""
    ).fetchall():
        pass
