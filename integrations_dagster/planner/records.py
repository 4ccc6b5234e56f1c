"""What events make of the records of the snapshot, as SQL.

What an event does to the records of the snapshot:

- an acknowledged write of key K with match value m and destination id d replaces (K, m); any older record with the same
  match value, or of K with the same id, is that record under an earlier owner or name, and goes, and so does one of
  another key with that id whose state is unknown. (Where it is known, two keys are one record at the destination, as
  merged contacts are: both stay, or each run would send the other.)
- an acknowledged create makes (K, m) likewise, but it made a record of its own: those of other keys stay;
- an acknowledged delete removes the record, by key and match value or by id;
- an unknown write (or a late answer) leaves its record with unknown digests, and so every other record that it may have
  touched: the same match value or id; an unknown delete likewise, and the ids are forgotten: if the record is gone, the
  next one with this match value has another;
- a row rejected, in doubt or known to be absent changes no record, unless the destination says that the record is gone.

"Older" and "later" are batch numbers, which follow the order in which answers were recorded.

Nearly always an event has to do with no other event of its fold: all of them are writes, or change no record, and each
write has a match value, and an id, of its own. Then each write is its record as it stands, and what is left to find out
is which older records it ends; this takes a fraction of the time. Whether a fold is so is asked first (`_LONE`).
"""

from __future__ import annotations

import duckdb

from integrations_dagster.planner.state import SNAPSHOT_COLUMNS, quote


def settle_records(connection: duckdb.DuckDBPyConnection, *, look: bool = True) -> bool:
    """Make what `RECORDS_AFTER` reads, of the views `snapshot`, `events`, `outcomes`, `ended` and
    `departed`.

    Args:
        look: Whether to look if each event is alone, and then to take the shorter way.

    Returns:
        Whether it is the shorter way.
    """
    connection.execute(_CONFIRMED)
    found = connection.execute(_LONE).fetchone() if look else None
    if found is not None:
        writes, entangled, matches, with_id, ids = found
        if not entangled and matches == writes and (with_id == 0 or with_id == ids == writes):
            connection.execute(_ALONE.format(records=_OWN_ID if with_id else _KNOWN_ID))
            return True
    connection.execute(_TOUCHES + _JUDGED)
    return False


_CONFIRMED = """
CREATE TEMP TABLE confirmed AS
    SELECT key, match, any_value(payload_digest) AS payload_digest, any_value(source_digest) AS source_digest,
        any_value(partition) AS partition
    FROM outcomes WHERE status = 'unchanged' GROUP BY key, match;
"""

# Hashes that meet by accident make less lone than is, and nothing wrong.
_LONE = """
SELECT count(*) FILTER (effect = 'write'),
    coalesce(bool_or(gone OR effect NOT IN ('write', 'rejected', 'in_doubt', 'absent', 'none')), false),
    count(DISTINCT hash(match)) FILTER (effect = 'write'),
    count(destination_id) FILTER (effect = 'write'),
    count(DISTINCT hash(destination_id)) FILTER (effect = 'write' AND destination_id IS NOT NULL)
FROM events"""

_OWN_ID = """
    SELECT key, match, partition, destination_id, source_digest, payload_digest, number FROM writes"""
_KNOWN_ID = """
    SELECT w.key, w.match, w.partition, k.destination_id, w.source_digest, w.payload_digest, w.number
    FROM writes w LEFT JOIN known k ON k.key = w.key AND k.match = w.match"""
_ALONE = """
CREATE TEMP VIEW known AS
    SELECT s.* FROM snapshot s
    -- Named by a plan as it was then: what was delivered again since is another deletion.
    ANTI JOIN ended ON ended.key = s.key AND ended.match = s.match AND ended.number = s.number;
CREATE TEMP VIEW writes AS SELECT * FROM events WHERE effect = 'write';
CREATE TEMP VIEW judged AS
    SELECT s.*, false AS blurred
    FROM known s
    LEFT JOIN writes m ON m.match = s.match
    LEFT JOIN writes i ON i.destination_id = s.destination_id
    WHERE NOT coalesce(m.key = s.key OR (m.action <> 'create' AND m.number > s.number), false)
        AND NOT coalesce(
            i.number > s.number AND (i.action = 'update' OR i.key = s.key OR s.source_digest IS NULL), false)
    UNION ALL BY NAME
    SELECT *, false AS blurred FROM ({records});
"""

# For each match value and each destination id, the last number of what would end or blur an older record that has it.
_TOUCHES = """
CREATE TEMP TABLE ended_by_match AS
    SELECT match, max(number) AS number FROM events WHERE effect = 'write' AND action <> 'create' GROUP BY match;
CREATE TEMP TABLE ended_by_id AS
    SELECT destination_id, max(number) AS number FROM events
    WHERE destination_id IS NOT NULL AND (effect = 'delete' OR gone OR effect = 'write' AND action = 'update')
    GROUP BY destination_id;
CREATE TEMP TABLE met_by_key AS
    SELECT destination_id, key, max(number) AS number FROM events
    WHERE destination_id IS NOT NULL AND effect = 'write' GROUP BY destination_id, key;
CREATE TEMP TABLE met AS
    SELECT destination_id, max(number) AS number FROM met_by_key GROUP BY destination_id;
CREATE TEMP TABLE ended_by_key AS
    SELECT key, match, max(number) AS number FROM events
    WHERE effect = 'delete' OR (gone AND action = 'modify') GROUP BY key, match;
CREATE TEMP TABLE blurred_by_match AS
    SELECT match, max(number) AS number FROM events WHERE effect LIKE 'unknown%' AND action <> 'create' GROUP BY match;
CREATE TEMP TABLE blurred_by_id AS
    SELECT destination_id, max(number) AS number FROM events
    WHERE destination_id IS NOT NULL AND effect LIKE 'unknown%' GROUP BY destination_id;
CREATE TEMP TABLE lost_by_match AS
    SELECT match, max(number) AS number FROM events WHERE effect = 'unknown_delete' GROUP BY match;
CREATE TEMP TABLE lost_by_id AS
    SELECT destination_id, max(number) AS number FROM events
    WHERE destination_id IS NOT NULL AND effect = 'unknown_delete' GROUP BY destination_id;
CREATE TEMP VIEW known AS
    SELECT s.* REPLACE (
        CASE WHEN coalesce(lm.number > s.number, false) OR coalesce(li.number > s.number, false) THEN NULL
            ELSE s.destination_id END AS destination_id)
    FROM snapshot s
    LEFT JOIN lost_by_match lm ON lm.match = s.match
    LEFT JOIN lost_by_id li ON li.destination_id = s.destination_id
    -- Named by a plan as it was then: what was delivered again since is another deletion.
    ANTI JOIN ended ON ended.key = s.key AND ended.match = s.match AND ended.number = s.number;
CREATE TEMP TABLE repeated AS
    SELECT key, match FROM events WHERE effect IN ('write', 'unknown_write') GROUP BY key, match HAVING count(*) > 1;
CREATE TEMP VIEW written AS
    SELECT e.key, e.match, e.number, e.partition, e.effect, e.source_digest, e.payload_digest,
        CASE e.effect WHEN 'write' THEN e.destination_id END AS acknowledged_id, e.destination_id AS known_id
    FROM events e ANTI JOIN repeated r ON r.key = e.key AND r.match = e.match
    WHERE e.effect IN ('write', 'unknown_write')
    UNION ALL BY NAME
    SELECT e.key, e.match,
        max(e.number) AS number,
        arg_max(e.partition, e.number) AS partition,
        arg_max(e.effect, e.number) AS effect,
        arg_max(e.source_digest, e.number) AS source_digest,
        arg_max(e.payload_digest, e.number) AS payload_digest,
        arg_max(e.destination_id, e.number) FILTER (e.destination_id IS NOT NULL AND e.effect = 'write')
            AS acknowledged_id,
        arg_max(e.destination_id, e.number) FILTER (e.destination_id IS NOT NULL) AS known_id
    FROM events e SEMI JOIN repeated r ON r.key = e.key AND r.match = e.match
    WHERE e.effect IN ('write', 'unknown_write') GROUP BY e.key, e.match;
"""

_JUDGED = """
CREATE TEMP VIEW judged AS
WITH records AS (
    SELECT s.* FROM known s ANTI JOIN written w ON w.key = s.key AND w.match = s.match
    UNION ALL BY NAME
    SELECT w.key, w.match, w.partition,
        coalesce(w.acknowledged_id, s.destination_id, w.known_id) AS destination_id,
        CASE w.effect WHEN 'write' THEN w.source_digest END AS source_digest,
        CASE w.effect WHEN 'write' THEN w.payload_digest END AS payload_digest,
        w.number
    FROM written w LEFT JOIN known s ON s.key = w.key AND s.match = w.match
)
SELECT r.* REPLACE (
    CASE WHEN coalesce(lm.number > r.number, false) OR coalesce(li.number > r.number, false) THEN NULL
        ELSE r.destination_id END AS destination_id),
    coalesce(bm.number > r.number, false) OR coalesce(bi.number > r.number, false) AS blurred
FROM records r
LEFT JOIN ended_by_match em ON em.match = r.match
LEFT JOIN ended_by_id ei ON ei.destination_id = r.destination_id
LEFT JOIN met_by_key mk ON mk.destination_id = r.destination_id AND mk.key = r.key
LEFT JOIN met ON met.destination_id = r.destination_id
LEFT JOIN ended_by_key ek ON ek.key = r.key AND ek.match = r.match
LEFT JOIN lost_by_match lm ON lm.match = r.match
LEFT JOIN lost_by_id li ON li.destination_id = r.destination_id
LEFT JOIN blurred_by_match bm ON bm.match = r.match
LEFT JOIN blurred_by_id bi ON bi.destination_id = r.destination_id
WHERE NOT coalesce(em.number > r.number, false)
    AND NOT coalesce(ei.number > r.number, false)
    AND NOT coalesce(mk.number > r.number, false)
    AND NOT (r.source_digest IS NULL AND coalesce(met.number > r.number, false))
    AND NOT coalesce(ek.number > r.number, false);
"""

RECORDS_AFTER = f"""
WITH confirmed_records AS (
    SELECT j.key, j.match,
        CASE WHEN c.key IS NOT NULL THEN c.partition WHEN d.key IS NULL THEN j.partition END AS partition,
        j.destination_id,
        CASE WHEN j.blurred THEN NULL WHEN c.key IS NULL THEN j.source_digest ELSE c.source_digest END
            AS source_digest,
        CASE WHEN j.blurred THEN NULL ELSE j.payload_digest END AS payload_digest,
        j.number
    FROM judged j
    LEFT JOIN confirmed c ON c.key = j.key AND c.match = j.match AND c.payload_digest = j.payload_digest
    -- Named by a plan as it was then, as above.
    LEFT JOIN departed d ON d.key = j.key AND d.match = j.match AND d.number = j.number
)
SELECT {", ".join(map(quote, SNAPSHOT_COLUMNS))} FROM confirmed_records
"""
"""The records after the events, once `settle_records` has looked at them."""
