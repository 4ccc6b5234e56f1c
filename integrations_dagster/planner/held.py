"""Held rows: those rejected, invalid or in doubt, that are no candidates until something changes or their time comes.

A row is *in doubt* when it was sent by a request that must not be repeated, and no answer came. Nothing sends it
again by itself: it stays held until a late answer or a look-up at the destination says what became of it, or a person
decides. An answer to a request in doubt is recognized by the row's key and the request's reference, its idempotency
key.

- late and accepted: the record is known, and the row is held no longer;
- late and rejected: the row is rejected;
- `absent`: the row is known not to be at the destination; it is held no longer, has no record, and is a candidate
  again.

If the row was sent again meanwhile, by a person's decision, that request's outcome stands: a late answer to the older
one changes no held row (see `STALE`).
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from integrations_dagster.destinations.base import GONE, NO_RECORD
from integrations_dagster.planner.state import HELD_COLUMNS, Home, Manifest, quote
from integrations_dagster.vocabulary import Action, HeldStatus


@dataclass(frozen=True, slots=True)
class Spacing:
    """When a rejected row that does not change is tried again.

    The first rejection is followed by a try in the next run, the n-th by one not before `wait` * 2^(n-2) seconds.

    Attributes:
        max_attempts: Rejections after which the row is parked.
        wait: Seconds after the second rejection.
        cap: Seconds between two tries at the most.
    """

    max_attempts: int = 10
    wait: float = 900.0
    cap: float = 86_400.0


DEFAULT_SPACING = Spacing()


@dataclass(frozen=True, slots=True)
class Doubt:
    """A row in doubt, with what is needed to find out about it and to record the answer.

    Attributes:
        payload_digest: "" where the state was written before it was kept.
        action: How it was sent; None where the state was written before it was kept.
        reference: The idempotency key of the request.
        since: When its request was given up, seconds since the epoch.
        run_id: The run that sent it; "" where the state was written before it was kept.
    """

    key: str
    match: str
    partition: str
    source_digest: str
    payload_digest: str
    action: Action | None
    reference: str
    since: float
    run_id: str
    destination_id: str | None


def doubts(home: Home, manifest: Manifest) -> list[Doubt]:
    """The rows in doubt, by key; also those whose key has left the model."""
    with duckdb.connect() as connection:
        home.attach(connection, manifest)
        rows = connection.execute(
            f"""SELECT key, match, partition, source_digest, coalesce(payload_digest, ''), action, reference, since,
                coalesce(run_id, ''), destination_id
            FROM held WHERE status = '{HeldStatus.IN_DOUBT}' ORDER BY key"""
        ).fetchall()
    return [
        Doubt(
            key, match, partition, source, payload, action and Action(action), reference, since, run_id, destination_id
        )
        for key, match, partition, source, payload, action, reference, since, run_id, destination_id in rows
    ]


def held_counts(home: Home, manifest: Manifest) -> dict[str, int]:
    """Held rows by `HeldStatus`, those whose key has left the model included; a status without rows is left out."""
    with duckdb.connect() as connection:
        home.attach(connection, manifest)
        rows = connection.execute("SELECT status, count(*) FROM held GROUP BY status ORDER BY status").fetchall()
    return {str(status): int(count) for status, count in rows}


STALE = """
CREATE TEMP TABLE stale AS
WITH late AS (SELECT key, number, reference FROM raw_events WHERE late AND effect NOT LIKE 'unknown%'),
others AS (
    SELECT e.key, e.number, e.reference, e.effect FROM raw_events e SEMI JOIN late l ON l.key = e.key WHERE NOT e.late
)
SELECT l.key, l.number
FROM late l
LEFT JOIN others o ON o.key = l.key AND o.number < l.number
LEFT JOIN held h ON h.key = l.key AND h.status = 'in_doubt'
GROUP BY l.key, l.number, l.reference
HAVING NOT coalesce(CASE WHEN max(o.number) IS NULL THEN any_value(h.reference) = l.reference
    ELSE arg_max(o.effect, o.number) = 'in_doubt' AND arg_max(o.reference, o.number) = l.reference END, false)
"""
"""Late answers that are not about the newest request of their row."""

STALE_EFFECT = """CASE
    WHEN effect = 'write' AND action = 'create' THEN 'write'
    WHEN effect = 'write' THEN 'unknown_write'
    WHEN effect = 'delete' THEN 'unknown_delete'
    ELSE 'none' END"""
"""What a stale answer does. A created record exists, whatever was sent later; an older update may have come last."""

CONCERNED = """(list_contains(getvariable('anew_partitions'), partition)
    AND (len(getvariable('anew_keys')) = 0 OR list_contains(getvariable('anew_keys'), key)))"""
"""Whether a resync forgets what is known of a row; variables: anew_partitions, anew_keys."""

HEEDED = """
CREATE TEMP TABLE heeded AS
SELECT key FROM events WHERE effect IN ('rejected', 'in_doubt', 'absent') UNION SELECT key FROM held
"""
"""Keys of which `HELD_AFTER` asks what was heard: a table, because there are few, or none, among many events."""

# A rejected removal and a rejected write of one key are two matters, each with its own attempts.
HELD_AFTER = f"""
WITH heard AS (
    SELECT e.* FROM events e SEMI JOIN heeded c ON c.key = e.key
    WHERE e.effect NOT LIKE 'unknown%' AND e.effect <> 'none'
), last AS (
    SELECT key,
        arg_max(match, number) AS match, arg_max(partition, number) AS partition,
        arg_max(source_digest, number) AS source_digest, arg_max(effect, number) AS effect,
        arg_max(code, number) AS code, arg_max(reason, number) AS reason,
        arg_max(reference, number) AS reference, arg_max(closed, number) AS closed,
        arg_max(payload_digest, number) AS payload_digest, arg_max(action, number) AS action,
        arg_max(run_id, number) AS run_id,
        arg_max(coalesce(destination_id, ''), number) AS destination_id,
        max(number) FILTER (effect <> 'rejected' OR code = '{GONE}') AS anew
    FROM heard GROUP BY key
), refused AS (
    SELECT l.key, count(*) AS times
    FROM last l JOIN heard e ON e.key = l.key AND e.effect = 'rejected' AND e.number > coalesce(l.anew, 0)
        AND e.source_digest = l.source_digest AND (e.action = 'delete') = (l.action = 'delete')
    WHERE l.effect = 'rejected' GROUP BY l.key
), told AS (
    SELECT l.* EXCLUDE (effect, destination_id),
        nullif(l.destination_id, '') AS destination_id,
        CASE WHEN l.effect IN ('rejected', 'in_doubt') THEN l.effect END AS status,
        coalesce(r.times, 0) AS rejections
    FROM last l LEFT JOIN refused r ON r.key = l.key
    UNION ALL BY NAME
    SELECT o.key, any_value(o.match) AS match, any_value(o.partition) AS partition,
        any_value(o.source_digest) AS source_digest,
        CASE WHEN bool_or(o.status = 'invalid') THEN 'invalid' END AS status, 0 AS rejections,
        any_value(o.code) AS code, any_value(o.reason) AS reason, getvariable('now') AS closed, '' AS reference
    FROM outcomes o
    ANTI JOIN last l ON l.key = o.key
    -- What needed no request says nothing of a request in doubt.
    ANTI JOIN (SELECT key FROM held WHERE status = 'in_doubt') d ON d.key = o.key
    WHERE o.key <> '' AND (o.status = 'unchanged' OR o.remember)
    GROUP BY o.key
), kept AS (
    SELECT h.* FROM held h
    ANTI JOIN told t ON t.key = h.key
    ANTI JOIN forgotten f ON f.key = h.key
    WHERE h.status = 'in_doubt' OR NOT {CONCERNED}
), counted AS (
    SELECT t.* EXCLUDE (rejections, closed),
        h.source_digest = t.source_digest AND (coalesce(h.action, '') = 'delete') = (coalesce(t.action, '') = 'delete')
            AND (h.status = 'in_doubt') = (t.status = 'in_doubt') AS same,
        CAST(coalesce(CASE WHEN same AND t.anew IS NULL THEN h.attempts END, 0) + t.rejections AS INTEGER) AS attempts,
        coalesce(CASE WHEN same THEN h.since END, t.closed) AS since,
        t.closed
    FROM told t LEFT JOIN held h ON h.key = t.key
    WHERE t.status IS NOT NULL
), news AS (
    SELECT * REPLACE (
        CASE WHEN status = 'rejected' AND attempts >= getvariable('max_attempts') AND code <> '{NO_RECORD}'
            THEN 'parked' ELSE status END AS status),
        CASE WHEN status = 'rejected' AND attempts >= 2
                AND (attempts < getvariable('max_attempts') OR code = '{NO_RECORD}')
            THEN closed + least(getvariable('cap'), getvariable('wait') * pow(2, least(attempts - 2, 60))) END
            AS not_before
    FROM counted
)
SELECT {", ".join(map(quote, HELD_COLUMNS))} FROM kept
UNION ALL BY NAME
SELECT {", ".join(map(quote, HELD_COLUMNS))} FROM news
"""
"""The held rows after the events of a fold, once `HEEDED` was run; variables: now, max_attempts, wait, cap,
anew_partitions, anew_keys."""
