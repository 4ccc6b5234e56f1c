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
    # The account, for counting what it accepted; null in ledgers of earlier versions.
    Column("account", String),
    # What resolves rows in doubt later: the payloads, to send the same body again under the same idempotency key, and
    # what names the work at the destination (a job). A batch that has either outlives its fold until it is resolved.
    Column("payloads", LargeBinary),
    Column("reference", String),
    # Whether it was in doubt and was taken up again: what is answered then is a late answer.
    Column("reopened", Boolean),
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
    Index("batches_by_account", "account", "closed"),
    sqlite_autoincrement=True,
)

# Until when a request that was given up, or repeated, may still take effect although its batch is closed.
quiet = Table(
    "quiet",
    metadata,
    Column("state_key", String, primary_key=True),
    Column("until", Float, nullable=False),
)

# What is known of an account, over all syncs, runs and processes that use it.
accounts = Table(
    "accounts",
    metadata,
    Column("account", String, primary_key=True),
    # Nothing is sent before.
    Column("blocked_until", Float, nullable=False),
    # The pace: see ledger.pace.
    Column("rate", Float),
    Column("ceiling", Float),
    Column("arrival", Float, nullable=False),
    Column("paced_since", Float, nullable=False),
    Column("granted", BigInteger, nullable=False),
    Column("reduced_at", BigInteger, nullable=False),
    Column("events", Integer, nullable=False),
    Column("last_event", Float, nullable=False),
    Column("last_grant", Float, nullable=False),
    Column("confirmed", Integer, nullable=False),
    # Requests in flight that the last run came to.
    Column("concurrency", Integer),
    # The circuit: when it was opened, by which run, and why; null while it is closed.
    Column("opened", Float),
    Column("opened_by", String),
    Column("reason", String),
)

# One row for each published quota of an account.
quotas = Table(
    "quotas",
    metadata,
    Column("account", String, primary_key=True),
    Column("seconds", Float, primary_key=True),
    # Declared, and what the destination's answers say instead.
    Column("requests", Integer, nullable=False),
    Column("reported", Integer),
    # Short windows are paced: the theoretical arrival time of the next request (GCRA).
    Column("arrival", Float, nullable=False),
    # Long windows are counted.
    Column("started", Float, nullable=False),
    Column("used", Integer, nullable=False),
)

# Requests in flight of an account with a concurrency cap; a slot whose holder died is free when its request has ended.
slots = Table(
    "slots",
    metadata,
    Column("holder", String, primary_key=True),
    Column("account", String, nullable=False),
    Column("expires", Float, nullable=False),
    Index("slots_by_account", "account"),
)

facts = Table(
    "facts",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
    Column("seen", Float, nullable=False),
)
