"""The sample warehouse is the same everywhere, and as messy as it says."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest

from integrations_dagster.sandbox.shop import Shop, change_some, create_shop, describe_shop
from integrations_dagster.vocabulary import Misconfigured

TABLES = ("customers", "companies", "subscriptions", "orders")
CUSTOMERS, ORDERS = 3_000, 9_000


def _query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql).fetchall()


def _one(path: Path, sql: str) -> Any:
    ((value,),) = _query(path, sql)
    return value


def _contents(path: Path) -> dict[str, tuple[Any, ...]]:
    sql = "SELECT count(*), bit_xor(md5_number_lower(CAST(t AS VARCHAR))) FROM raw.{} t"
    return {table: _query(path, sql.format(table))[0] for table in TABLES}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "shop.duckdb"
    create_shop(path, CUSTOMERS, ORDERS)
    return path


def test_it_has_the_sizes_asked_for(shop: Path) -> None:
    assert describe_shop(shop) == Shop(CUSTOMERS, ORDERS, 1, 0)
    counts = {table: count for table, (count, _) in _contents(shop).items()}
    assert counts["customers"] == CUSTOMERS
    assert counts["orders"] == ORDERS
    assert counts["companies"] == CUSTOMERS // 10
    assert CUSTOMERS / 2 < counts["subscriptions"] < CUSTOMERS


def test_the_same_call_gives_the_same_rows_and_another_seed_others(shop: Path, tmp_path: Path) -> None:
    create_shop(tmp_path / "again.duckdb", CUSTOMERS, ORDERS)
    create_shop(tmp_path / "other.duckdb", CUSTOMERS, ORDERS, seed=2)
    assert _contents(tmp_path / "again.duckdb") == _contents(shop)
    assert _contents(tmp_path / "other.duckdb")["customers"] != _contents(shop)["customers"]


def test_its_contents_do_not_drift_between_versions_of_duckdb(tmp_path: Path) -> None:
    create_shop(tmp_path / "tiny.duckdb", customers=4, orders=4)
    emails = _query(tmp_path / "tiny.duckdb", "SELECT email FROM raw.customers ORDER BY id")
    assert emails == [
        ("grace.hopper1@post.example.org",),
        ("linus+shop2@example.net",),
        ("j.mueller3@correo.example.es",),
        (" j.mueller3@correo.example.es ",),
    ]


@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("null emails", "email IS NULL"),
        ("blank emails", "trim(email) = ''"),
        ("malformed emails", "email NOT LIKE '%@%' AND trim(email) <> ''"),
        ("padded emails", "email <> trim(email) AND trim(email) <> ''"),
        ("null first names", "first_name IS NULL"),
        ("right-to-left names", "regexp_matches(last_name, '[\\x{0590}-\\x{06FF}]')"),
        ("4-byte characters", "regexp_matches(first_name || last_name, '[\\x{10000}-\\x{10FFFF}]')"),
        ("line breaks", "notes LIKE '%\n%'"),
        ("consent unknown", "marketing_consent IS NULL"),
        ("nested JSON", "(attributes -> 'address' ->> 'street') IS NOT NULL"),
        ("fractions of a second", "microsecond(signup_at) % 1000 <> 0"),
    ],
)
def test_customers_have_the_mess_of_real_data(shop: Path, what: str, where: str) -> None:
    assert _one(shop, f"SELECT count(*) FROM raw.customers WHERE {where}") > 0, what


def test_emails_are_repeated_also_in_another_case_and_between_blanks(shop: Path) -> None:
    exactly = _one(shop, "SELECT count(email) - count(DISTINCT email) FROM raw.customers")
    normalized = _one(shop, "SELECT count(email) - count(DISTINCT lower(trim(email))) FROM raw.customers")
    assert 0 < exactly < normalized < CUSTOMERS // 10


def test_a_few_texts_are_too_long_for_a_crm(shop: Path) -> None:
    assert 2 <= _one(shop, "SELECT count(*) FROM raw.customers WHERE length(notes) > 65536") <= 5


def test_keys_are_sound(shop: Path) -> None:
    for table in TABLES:
        assert _one(shop, f"SELECT count(*) - count(DISTINCT id) FROM raw.{table}") == 0, table


def test_orders_fill_ninety_days(shop: Path) -> None:
    days = _query(shop, "SELECT CAST(ordered_at AS DATE) AS day, count(*) FROM raw.orders GROUP BY day ORDER BY day")
    assert len(days) == 90
    assert (str(days[0][0]), str(days[-1][0])) == ("2026-06-01", "2026-08-29")


def test_a_round_changes_adds_and_removes_a_little(tmp_path: Path) -> None:
    path, same = tmp_path / "shop.duckdb", tmp_path / "same.duckdb"
    for each in (path, same):
        create_shop(each, CUSTOMERS, ORDERS)
    before = dict(_query(path, "SELECT id, CAST(c AS VARCHAR) FROM raw.customers c"))
    owners = dict(_query(path, "SELECT lower(trim(email)), id FROM raw.customers WHERE email IS NOT NULL"))
    late_days = set(_query(path, "SELECT CAST(ordered_at AS DATE) FROM raw.orders WHERE id > 0"))

    assert change_some(path, round=1).rounds == 1
    after = dict(_query(path, "SELECT id, CAST(c AS VARCHAR) FROM raw.customers c"))
    changed = [key for key in before.keys() & after.keys() if before[key] != after[key]]
    assert 0 < len(before.keys() - after.keys()) < 0.05 * CUSTOMERS
    assert 0 < len(after.keys() - before.keys()) < 0.05 * CUSTOMERS
    assert 0.01 * CUSTOMERS < len(changed) < 0.1 * CUSTOMERS

    now = _query(path, "SELECT lower(trim(email)), id FROM raw.customers WHERE email IS NOT NULL")
    passed = {email: (owners[email], owner) for email, owner in now if email in owners and owners[email] != owner}
    assert any(old not in after for old, _ in passed.values()), "no email went on from a removed customer"
    assert any((new, old) in passed.values() for old, new in passed.values()), "no two customers swapped emails"

    late = set(_query(path, f"SELECT CAST(ordered_at AS DATE) FROM raw.orders WHERE id > {ORDERS}"))
    assert 1 <= len(late) <= 3
    assert late <= late_days

    first = _contents(path)
    change_some(path)
    assert _contents(path) != first
    change_some(same)
    assert _contents(same) == first, "a round is not deterministic"


def test_a_round_is_done_once(tmp_path: Path) -> None:
    path = tmp_path / "shop.duckdb"
    create_shop(path, customers=20, orders=20)
    change_some(path, round=1)
    with pytest.raises(ValueError, match="round 1 is not the next one"):
        change_some(path, round=1)
    assert describe_shop(path).rounds == 1


def test_a_round_waits_for_a_reader_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "shop.duckdb"
    create_shop(path, customers=20, orders=20)
    code = "import sys, duckdb; c = duckdb.connect(sys.argv[1], read_only=True); print('open', flush=True); input()"
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "open\n"
    release = threading.Timer(0.3, lambda: reader.communicate("\n"))
    release.start()
    assert change_some(path).rounds == 1
    release.join()


def test_it_appears_at_once_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "shop.duckdb"
    create_shop(path, customers=3, orders=3)
    create_shop(path, customers=5, orders=5)
    assert [p.name for p in path.parent.iterdir()] == ["shop.duckdb"]
    assert describe_shop(path).customers == 5


def test_what_is_missing_or_something_else_is_said(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="make warehouse"):
        describe_shop(tmp_path / "none.duckdb")
    duckdb.connect(str(tmp_path / "other.duckdb")).close()
    with pytest.raises(Misconfigured, match="is not a sample warehouse"):
        change_some(tmp_path / "other.duckdb")
    with pytest.raises(ValueError, match="at least one customer"):
        create_shop(tmp_path / "empty.duckdb", customers=0)
