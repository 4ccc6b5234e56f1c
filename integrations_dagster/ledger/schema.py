"""The ledger's tables."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

metadata = MetaData()

leases = Table(
    "leases",
    metadata,
    Column("state_key", String, primary_key=True),
    Column("fence", BigInteger, nullable=False),
    Column("run_id", String, nullable=False),
    Column("host", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Float, nullable=False),
    Column("heartbeat", Float, nullable=False),
    Column("known", Boolean, nullable=False),
    Column("released", Boolean, nullable=False),
)

# One row for each shard of a run that is being written: the fence is raised by each attempt of its write op.
shards = Table(
    "shards",
    metadata,
    Column("state_key", String, primary_key=True),
    Column("run_id", String, primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("fence", BigInteger, nullable=False),
)

# The last number given to a closed batch. A row of its own, so that its lock makes numbers commit in order on every
# database.
counters = Table(
    "counters",
    metadata,
    Column("state_key", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

# SQLite only gives out ids that were never used before with AUTOINCREMENT, and only to INTEGER primary keys.
batches = Table(
    "batches",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("state_key", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("shard_fence", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("idempotency_key", String, nullable=False),
    Column("repeatable", Boolean, nullable=False),
    Column("host", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Float, nullable=False),
    Column("opened", Float, nullable=False),
    Column("deadline", Float, nullable=False),
    Column("status", String, nullable=False),
    Column("number", BigInteger),
    Column("rows", LargeBinary, nullable=False),
    Column("outcomes", LargeBinary),
    Column("traffic", LargeBinary),
    Column("closed", Float),
    Index("batches_by_number", "state_key", "number"),
    Index("batches_by_shard", "run_id", "shard"),
    sqlite_autoincrement=True,
)

# Until when a request that was given up, or repeated, may still take effect although its batch is closed.
quiet = Table(
    "quiet",
    metadata,
    Column("state_key", String, primary_key=True),
    Column("until", Float, nullable=False),
)

facts = Table(
    "facts",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
    Column("seen", Float, nullable=False),
)
