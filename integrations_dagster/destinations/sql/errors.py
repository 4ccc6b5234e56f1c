"""What a database's errors mean, by SQLSTATE (PostgreSQL's documentation, appendix A), for business users.

A session tells an error with status 400 after it has undone the whole batch, so that none of these had an effect.
"""

from __future__ import annotations

from integrations_dagster.destinations.error_table import ErrorEntry
from integrations_dagster.destinations.errors import PoisonedBatch, Refused, Throttled, Unauthorized, Unavailable

TABLE: tuple[ErrorEntry, ...] = (
    ErrorEntry(
        "400",
        PoisonedBatch,
        "Another record has the same value in a column whose values are unique.",
        code="23505",
    ),
    ErrorEntry(
        "400",
        PoisonedBatch,
        "A column that must have a value has none.",
        code="23502",
    ),
    ErrorEntry(
        "400",
        PoisonedBatch,
        "A value names a record of another table that does not exist, or a record that others still name was "
        "to be deleted.",
        code="23503",
    ),
    ErrorEntry(
        "400",
        PoisonedBatch,
        "A value breaks a rule of the table.",
        code="(23...|44000)",
    ),
    ErrorEntry(
        "400",
        PoisonedBatch,
        "Two rows of a batch have the same match value once the database has read it.",
        code="21000",
    ),
    ErrorEntry(
        "400",
        PoisonedBatch,
        "A value does not fit its column.",
        code="(22...|54000)",
    ),
    ErrorEntry(
        "400",
        PoisonedBatch,
        "A trigger of the table refused the row.",
        code="(P0...|09000|27000|SKIPPED)",
    ),
    ErrorEntry(
        "400",
        Throttled,
        "Another transaction was in the way.",
        code="(40001|40P01|55P03|CONFLICT)",
        wait=0.1,
    ),
    ErrorEntry(
        "400",
        Refused,
        "The table does not exist.",
        "Create it, or correct `object` of the sync.",
        code="(42P01|3F000)",
    ),
    ErrorEntry(
        "400",
        Refused,
        "The table has no such column.",
        "Add the column to the table, or correct `fields` of the sync.",
        code="42703",
    ),
    ErrorEntry(
        "400",
        Refused,
        "The database user may not do this.",
        "Grant it SELECT, INSERT, UPDATE and, for mirror and delete, DELETE on the table; to insert, also "
        "CREATE on its schema (for the table of batches, see docs/destinations/sql.md).",
        code="42501",
    ),
    ErrorEntry(
        "400",
        Refused,
        "No unique constraint is on the match columns, so records cannot be told apart.",
        "Add a unique index on exactly these columns.",
        code="42P10",
    ),
    ErrorEntry(
        "400",
        Refused,
        "The column is written by the database itself.",
        "Leave it out of `fields`.",
        code="(428C9|55000)",
    ),
    ErrorEntry(
        "400",
        Refused,
        "The database takes no changes: it is read-only.",
        "Set `base_url` of the target to the primary server.",
        code="25006",
    ),
    ErrorEntry(
        "400",
        Refused,
        "The database refused the statement.",
        "Look its message up in the database's documentation.",
    ),
    ErrorEntry(
        "401",
        Unauthorized,
        "The database does not accept the user or the password.",
        "Correct `base_url` or `auth` of the target.",
    ),
    ErrorEntry(
        "4xx",
        Refused,
        "The database cannot be used.",
        "Correct `base_url` of the target.",
    ),
    ErrorEntry(
        "5xx",
        Unavailable,
        "The database is out of order.",
    ),
    ErrorEntry(
        "3xx",
        Unavailable,
        "The answer cannot be understood.",
    ),
    ErrorEntry(
        "1xx",
        Unavailable,
        "The answer cannot be understood.",
    ),
)
