"""The sample warehouse: raw tables of a subscription shop in DuckDB, with the mess of real data.

Everything follows from the sizes and the seed: the same call gives the same rows on every machine. What looks random
is the MD5 of a row's number, made by DuckDB a column at a time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import duckdb
import tenacity

from integrations_dagster.sandbox.shop_words import BAD_EMAILS, CITIES, FIRST_NAMES, LAST_NAMES, MAILBOXES, NOTES
from integrations_dagster.vocabulary import IntegrationsError, Misconfigured

FIRST_DAY = "2026-06-01"
DAYS = 90
"""Orders are placed from 2026-06-01 to 2026-08-29."""

Parameters = dict[str, object]

_PATIENCE = 30.0
"""Seconds to wait for another process that has the file open."""


@dataclass(frozen=True, slots=True)
class Shop:
    """What a sample warehouse holds.

    Attributes:
        customers: Rows of `raw.customers` at its creation.
        orders: Rows of `raw.orders` at its creation.
        seed: What its rows follow from.
        rounds: How many times `change_some` has changed it.
    """

    customers: int
    orders: int
    seed: int
    rounds: int


def create_shop(path: Path, customers: int = 50_000, orders: int = 500_000, seed: int = 1) -> Shop:
    """Create the sample warehouse; a file that is there is replaced once the new one is complete.

    Args:
        path: The DuckDB file.
        customers: Rows of `raw.customers`, at least 1; a tenth as many companies.
        orders: Rows of `raw.orders`, over 90 days.
        seed: Another seed gives other rows.

    Raises:
        ValueError: There are no customers to have orders.
    """
    if customers < 1 or orders < 0:
        raise ValueError(f"A shop has at least one customer and no negative orders, not {customers} and {orders}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shop = Shop(customers, orders, seed, rounds=0)
    try:
        with duckdb.connect(str(draft)) as connection:
            _prepare(connection, seed)
            companies = max(1, customers // 10)
            connection.execute(_SCHEMA)
            connection.execute(_COMPANIES, {"first": 1, "last": companies})
            connection.execute(_CUSTOMERS, {"first": 1, "last": customers, "customers": customers})
            connection.execute(_SUBSCRIPTIONS, {"first": 1, "last": customers})
            connection.execute(_ORDERS, {"first": 1, "last": orders, "customers": customers})
            connection.execute("INSERT INTO raw.shop VALUES (?, ?, ?, 0)", [customers, orders, seed])
            connection.execute("CHECKPOINT")
        draft.replace(path)
    finally:
        for leftover in (draft, draft.with_name(f"{draft.name}.wal")):
            leftover.unlink(missing_ok=True)
    return shop


def describe_shop(path: Path) -> Shop:
    """What the sample warehouse at `path` holds.

    Raises:
        Misconfigured: The file is missing, or is no sample warehouse.
    """
    if not path.exists():
        raise Misconfigured(f"There is no sample warehouse at {path}.", "Create it with `make warehouse`.")
    with _open(path, read_only=True) as connection:
        return _shop(connection, path)


def change_some(path: Path, round: int | None = None) -> Shop:
    """Change the shop as a few hours of business would, in one transaction.

    Every round changes about 3 % of the customers and companies, adds 0.5 % and removes 0.4 % of the customers, adds
    and removes 0.2 % of the companies, places late orders on three days, corrects and removes a few orders. Two
    customers swap emails, and one takes the email of a removed customer.

    Args:
        path: A file made by `create_shop`.
        round: The number of the change, 1 for the first; must be the next one. Default: the next one.

    Raises:
        Misconfigured: The file is missing, or is no sample warehouse.
        ValueError: `round` is not the next one.
    """
    before = describe_shop(path)
    if round not in (None, before.rounds + 1):
        raise ValueError(f"{path} has been changed {before.rounds} times: round {round} is not the next one.")
    number = before.rounds + 1
    with _open(path) as connection:
        # Another salt for each round, so that it is not the same rows that change.
        _prepare(connection, before.seed * 1_000 + number)
        connection.execute("BEGIN")
        for statement in _CHANGES:
            connection.execute(statement, _bound(statement, {"round": number}))
        _grow(connection, before)
        connection.execute("UPDATE raw.shop SET rounds = ?", [number])
        connection.execute("COMMIT")
    return describe_shop(path)


def _open(path: Path, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open the file, waiting while another process has it open: a writer and others exclude each other."""
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_message(match=".*lock.*"),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=1.0),
        stop=tenacity.stop_after_delay(_PATIENCE),
        reraise=True,
    )
    try:
        return attempts(duckdb.connect, str(path), read_only=read_only)
    except duckdb.Error as error:
        raise IntegrationsError(
            f"{path} cannot be opened. {error}\n", "Close what has it open, or delete it and run `make warehouse`."
        ) from error


def _shop(connection: duckdb.DuckDBPyConnection, path: Path) -> Shop:
    try:
        found = connection.execute("SELECT customers, orders, seed, rounds FROM raw.shop").fetchone()
    except duckdb.CatalogException:
        found = None
    if found is None:
        raise Misconfigured(f"{path} is not a sample warehouse.", "Delete it and run `make warehouse`.")
    return Shop(*found)


def _bound(statement: str, parameters: Parameters) -> Parameters:
    return {name: value for name, value in parameters.items() if f"${name}" in statement}


def _prepare(connection: duckdb.DuckDBPyConnection, seed: int) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    for name, words in (
        ("first_names", FIRST_NAMES),
        ("last_names", LAST_NAMES),
        ("cities", CITIES),
        ("mailboxes", MAILBOXES),
        ("bad_emails", BAD_EMAILS),
        ("notes", NOTES),
    ):
        connection.execute(f"SET VARIABLE {name} = $words", {"words": list(words)})
    connection.execute(
        # pick: a number from 0 to n - 1 that follows from the salt and the row's number.
        f"""CREATE OR REPLACE TEMP MACRO pick(salt, i, n) AS
            CAST(md5_number_lower('{int(seed)}:' || salt || ':' || i) % n AS BIGINT);
        CREATE OR REPLACE TEMP MACRO one_of(words, salt, i) AS words[1 + pick(salt, i, len(words))];
        CREATE OR REPLACE TEMP MACRO mailbox(i) AS
            getvariable('mailboxes')[1 + i % len(getvariable('mailboxes'))] || i || '@'
            || ['mail.example.com', 'post.example.org', 'example.net', 'correo.example.es'][1 + i % 4]"""
    )


def _grow(connection: duckdb.DuckDBPyConnection, shop: Shop) -> None:
    """New companies, customers, subscriptions and late orders."""

    def last(table: str, column: str) -> int:
        found = connection.execute(f"SELECT coalesce(max({column}), 0) FROM raw.{table}").fetchone()  # noqa: S608
        assert found is not None
        return int(found[0])

    company, customer, order = last("companies", "id"), last("customers", "id"), last("orders", "id")
    more_companies = max(1, shop.customers // 5_000)
    more_customers = max(1, shop.customers // 200)
    late = max(3, shop.orders // 10_000)
    connection.execute(_COMPANIES, {"first": company + 1, "last": company + more_companies})
    people = {"first": customer + 1, "last": customer + more_customers}
    connection.execute(_CUSTOMERS, {**people, "customers": shop.customers})
    connection.execute(_SUBSCRIPTIONS, people)
    connection.execute(_ORDERS, {"first": order + 1, "last": order + late, "customers": shop.customers})
    # Late orders come in for three days only, so that the other days of a backfill have nothing to send.
    connection.execute(
        f"""UPDATE raw.orders SET ordered_at = TIMESTAMPTZ '{FIRST_DAY}'
            + to_days(CAST(pick('late', id % 3, {DAYS}) AS INTEGER)) + to_seconds(pick('second', id, 86400))
        WHERE id > $last""",  # noqa: S608 (constants)
        {"last": order},
    )


_SCHEMA = """
CREATE SCHEMA raw;
CREATE TABLE raw.shop (customers BIGINT, orders BIGINT, seed BIGINT, rounds BIGINT);
CREATE TABLE raw.companies (
    id BIGINT, name VARCHAR, domain VARCHAR, employees INTEGER, founded_on DATE, updated_at TIMESTAMPTZ
);
CREATE TABLE raw.customers (
    id BIGINT, company_id BIGINT, email VARCHAR, first_name VARCHAR, last_name VARCHAR, phone VARCHAR, city VARCHAR,
    country VARCHAR, marketing_consent BOOLEAN, signup_at TIMESTAMPTZ, notes VARCHAR, attributes JSON
);
CREATE TABLE raw.subscriptions (
    id BIGINT, customer_id BIGINT, plan VARCHAR, status VARCHAR, mrr DECIMAL(10, 2), started_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ
);
CREATE TABLE raw.orders (
    id BIGINT, customer_id BIGINT, status VARCHAR, amount DECIMAL(12, 2), currency VARCHAR, rate_to_eur DECIMAL(12, 6),
    ordered_at TIMESTAMPTZ, items JSON
);
"""

_COMPANIES = """
INSERT INTO raw.companies
SELECT i,
    CASE WHEN pick('name', i, 200) = 0 THEN NULL
        ELSE one_of(getvariable('last_names'), 'company', i)
            || one_of(['', ' & Söhne', ' GmbH', ' Ltd.', ' S.A.', ' 株式会社', ' בע"מ', ', Inc. "Best"'], 'form', i)
            || ' ' || i END,
    -- Sister companies share a domain; some have none.
    CASE WHEN pick('domain', i, 20) = 0 THEN NULL ELSE 'company' || (i - pick('sister', i, 50) // 48) || '.example' END,
    CASE WHEN pick('staff', i, 12) = 0 THEN NULL ELSE CAST(1 + pow(10, pick('staff', i, 450) / 100.0) AS INTEGER) END,
    CASE WHEN pick('founded', i, 10) > 0 THEN DATE '1871-01-18' + CAST(pick('founded', i, 56000) AS INTEGER) END,
    TIMESTAMPTZ '2026-05-01 08:00:00+00' + to_seconds(pick('updated', i, 2500000))
FROM range($first, $last + 1) r(i)
"""

_CUSTOMERS = """
INSERT INTO raw.customers
WITH numbered AS (SELECT i, pick('mess', i, 1000) AS mess FROM range($first, $last + 1) r(i))
SELECT i,
    CASE WHEN pick('works', i, 4) = 0 THEN NULL ELSE 1 + pick('company', i, greatest(1, $customers // 10)) END,
    CASE
        WHEN mess < 15 THEN NULL
        WHEN mess < 17 THEN repeat(' ', CAST(mess - 15 AS BIGINT))
        WHEN mess < 23 THEN replace(one_of(getvariable('bad_emails'), 'bad', i), '#', CAST(i AS VARCHAR))
        -- The email of the customer before: as it is, in capitals, between blanks.
        WHEN mess < 28 THEN mailbox(i - 1)
        WHEN mess < 33 THEN upper(mailbox(i - 1))
        WHEN mess < 36 THEN ' ' || mailbox(i - 1) || ' '
        -- Its own, badly typed, and good once normalized.
        WHEN mess < 43 THEN upper(mailbox(i))
        WHEN mess < 50 THEN '  ' || mailbox(i)
        ELSE mailbox(i) END,
    CASE WHEN pick('first', i, 50) = 0 THEN NULL ELSE one_of(getvariable('first_names'), 'first', i) END,
    CASE WHEN pick('last', i, 70) = 0 THEN NULL ELSE one_of(getvariable('last_names'), 'last', i) END,
    CASE pick('phone', i, 5) WHEN 0 THEN NULL WHEN 1 THEN '0' || pick('number', i, 1000000000)
        ELSE '+49 (0)30 / ' || pick('number', i, 10000000) END,
    CASE WHEN pick('city', i, 25) = 0 THEN NULL ELSE one_of(getvariable('cities'), 'city', i) END,
    CASE WHEN pick('country', i, 40) = 0 THEN NULL
        ELSE ['DE', 'FR', 'IL', 'SA', 'JP', 'US', 'GB', 'PL', 'ES', 'IN'][1 + pick('country', i, 10)] END,
    CASE pick('consent', i, 6) WHEN 0 THEN NULL WHEN 1 THEN false ELSE true END,
    TIMESTAMPTZ '2022-03-27 01:30:00.123456+01' + to_seconds(pick('signup', i, 130000000))
        + to_microseconds(pick('micro', i, 1000000)),
    CASE
        WHEN (i + 9) % greatest($customers // 3, 2) = 0
            THEN repeat('A very long story. 漢字 ', 3200 + CAST(i % 7 AS BIGINT))
        WHEN pick('notes', i, 200) = 0 THEN repeat('Called; will call again. Grüße 👋 ', 20 + pick('long', i, 500))
        WHEN pick('notes', i, 3) = 0 THEN one_of(getvariable('notes'), 'note', i) END,
    CASE WHEN pick('attributes', i, 10) = 0 THEN NULL ELSE json_object(
        'locale', ['de-DE', 'en-GB', 'ar-SA', 'he-IL', 'ja-JP'][1 + pick('locale', i, 5)],
        'score', pick('score', i, 1000) / 1000.0,
        'referrer', CASE WHEN pick('referrer', i, 3) = 0 THEN NULL ELSE 'Newsletter "June" \\ ☀️' END,
        'tags', ['new', 'vip', '特別'][1:1 + pick('tags', i, 3)],
        'address', json_object('street', one_of(getvariable('last_names'), 'street', i) || 'straße',
            'number', pick('house', i, 200), 'floors', [pick('floor', i, 5), NULL, pick('lift', i, 9) / 2])
    ) END
FROM numbered
"""

_SUBSCRIPTIONS = """
INSERT INTO raw.subscriptions
WITH chosen AS (
    -- A third of the customers never subscribed, a tenth did twice.
    SELECT i, s FROM range($first, $last + 1) r(i), range(2) t(s)
    WHERE (s = 0 AND pick('subscribed', i, 3) > 0) OR (s = 1 AND pick('again', i, 10) = 0)
),
planned AS (SELECT *, 1 + pick('plan', 2 * i + s, 4) AS p, pick('ended', 2 * i + s, 4) = 0 AS ended FROM chosen)
SELECT 2 * i + s, i, ['free', 'starter', 'team', 'enterprise'][p],
    CASE WHEN ended THEN 'cancelled' WHEN pick('pause', i, 30) = 0 THEN 'paused' ELSE 'active' END,
    [0.00, 9.90, 49.00, 499.99][p],
    TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_seconds(pick('start', 2 * i + s, 60000000)),
    CASE WHEN ended THEN TIMESTAMPTZ '2025-12-31 23:59:59.999+00' + to_seconds(pick('end', i, 12000000)) END
FROM planned
"""

_ORDERS = f"""
INSERT INTO raw.orders
SELECT i, 1 + pick('buyer', i, $customers),
    CASE WHEN pick('state', i, 25) = 0 THEN 'cancelled' WHEN pick('state', i, 25) = 1 THEN 'refunded' ELSE 'paid' END,
    CASE WHEN pick('amount', i, 500) = 0 THEN NULL ELSE CAST(pick('amount', i, 100000) / 100.0 AS DECIMAL(12, 2)) END,
    ['EUR', 'USD', 'JPY', 'ILS'][1 + pick('currency', i, 4)],
    [1.000000, 0.861234, 0.005871, 0.251900][1 + pick('currency', i, 4)],
    TIMESTAMPTZ '{FIRST_DAY} 00:00:00+00' + to_days(CAST(pick('day', i, {DAYS}) AS INTEGER))
        + to_seconds(pick('second', i, 86400)),
    to_json(list_transform(range(1 + pick('items', i, 3)), lambda n: {{
        'sku': 'SKU-' || (n + pick('sku', i, 900)), 'quantity': 1 + n, 'gift': pick('gift', i, 9) = 0
    }}))
FROM range($first, $last + 1) r(i)
"""  # noqa: S608 (constants)

_CHANGES = (
    # An email goes from a removed customer to one who stays, and two customers swap theirs.
    """CREATE TEMP TABLE chosen AS
        SELECT id, email, row_number() OVER (ORDER BY pick('chosen', id, 1000000000), id) AS n
        FROM raw.customers WHERE email = mailbox(id) QUALIFY n <= 4""",
    "DELETE FROM raw.customers WHERE id = (SELECT id FROM chosen WHERE n = 1)",
    """UPDATE raw.customers SET email = (SELECT email FROM chosen WHERE n = 1)
        WHERE id = (SELECT id FROM chosen WHERE n = 2)""",
    """UPDATE raw.customers
        SET email = (SELECT email FROM chosen WHERE n = 7 - (SELECT n FROM chosen c WHERE c.id = customers.id))
        WHERE id IN (SELECT id FROM chosen WHERE n IN (3, 4)) AND (SELECT count(*) FROM chosen) = 4""",
    """DELETE FROM raw.customers WHERE pick('removed', id, 250) = 0
        AND id NOT IN (SELECT id FROM chosen WHERE n > 1)""",
    "DELETE FROM raw.subscriptions WHERE customer_id NOT IN (SELECT id FROM raw.customers)",
    """UPDATE raw.customers SET
        city = one_of(getvariable('cities'), 'moved', id),
        notes = CASE WHEN pick('noted', id, 2) = 0 THEN 'Moved in round ' || $round ELSE notes END
        WHERE pick('moves', id, 50) = 0""",
    # Someone mends an email, someone mistypes one, someone has a new one.
    """UPDATE raw.customers SET email = mailbox(id)
        WHERE email IS NOT NULL AND email <> mailbox(id) AND pick('mended', id, 10) = 0
        AND id NOT IN (SELECT id FROM chosen)""",
    """UPDATE raw.customers SET email = CASE WHEN pick('how', id, 10) = 0 THEN 'typo@' || email ELSE 'new.' || email END
        WHERE email = mailbox(id) AND pick('renamed', id, 400) = 0 AND id NOT IN (SELECT id FROM chosen)""",
    """UPDATE raw.subscriptions SET plan = 'enterprise', mrr = 499.99, status = 'active', ended_at = NULL
        WHERE pick('upgraded', id, 100) = 0""",
    "DELETE FROM raw.companies WHERE pick('closed', id, 500) = 0",
    "UPDATE raw.companies SET employees = coalesce(employees, 0) + 1 WHERE pick('hired', id, 50) = 0",
    "UPDATE raw.orders SET status = 'refunded' WHERE pick('refunded', id, 2000) = 0",
    "DELETE FROM raw.orders WHERE pick('mistake', id, 10000) = 0",
)
