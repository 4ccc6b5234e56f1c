"""The flow of `file`: names, rows and what YAML may say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from integrations_dagster.destinations.base import Batch, Repeat, Request, Response
from integrations_dagster.destinations.errors import DestinationError, PoisonedBatch, Refused, Throttled, Unavailable
from integrations_dagster.destinations.file import File, FileKeys, Put, moment_of
from integrations_dagster.vocabulary import Action, Change, Misconfigured, Mode, Outcome, Row, Status

KEY = f"{1_785_585_845_123:012x}00000000000000000000"
"""Of 2026-08-01T12:04:05.123Z."""


def batch(action: Action, *rows: Row, key: str = KEY) -> Batch:
    return Batch("orders_sync", "sales/orders", action, (), rows, key)


def asked(kind: File, given: Batch) -> tuple[Request, Put, list[Outcome]]:
    flow = kind.deliver(given)
    request = next(flow)
    assert isinstance(request, Request)
    assert isinstance(request.command, Put)
    with pytest.raises(StopIteration) as end:
        flow.send(Response(200, {}, b'{"bytes": 10}'))
    return request, request.command, end.value.value


def test_a_file_is_named_by_its_batch_and_tells_what_happened() -> None:
    rows = (
        Row(0, "1", "1", Change.ADDED, Action.UPSERT, b'{"b":1,"a":"x"}', "2026-08"),
        Row(1, "2", "2", Change.CHANGED, Action.UPSERT, b'{"c":null}'),
        Row(2, "3", "3", Change.CHANGED, Action.UPSERT, b"{}"),
    )
    request, put, outcomes = asked(File(), batch(Action.UPSERT, *rows))
    assert put.path == f"sales/orders/2026-08-01/{KEY}.jsonl"
    assert [json.loads(line) for line in (request.body or b"").splitlines()] == [
        {"_change": "added", "_key": "1", "_partition": "2026-08", "_at": "2026-08-01T12:04:05.123Z", "a": "x", "b": 1},
        {"_change": "changed", "_key": "2", "_partition": "", "_at": "2026-08-01T12:04:05.123Z", "c": None},
        {"_change": "changed", "_key": "3", "_partition": "", "_at": "2026-08-01T12:04:05.123Z"},
    ]
    assert [name for name, _ in put.columns] == ["_change", "_key", "_partition", "_at", "a", "b", "c"]
    assert [outcome.status for outcome in outcomes] == [Status.CREATED, Status.UPDATED, Status.UPDATED]
    again, _, _ = asked(File(), batch(Action.UPSERT, *rows))
    assert (again.path, again.body) == (request.path, request.body), "the same batch is the same file"


def test_removals_have_a_key_alone() -> None:
    request, _, (outcome,) = asked(
        File(None, FileKeys(about=False)), batch(Action.DELETE, Row(0, "3", "3", Change.REMOVED, Action.DELETE))
    )
    assert json.loads(request.body or b"")["_change"] == "removed"
    assert outcome.status is Status.DELETED


def test_paths_endings_and_types() -> None:
    files = FileKeys(format="parquet", path="{sync}/{date}/{hour}/part-{batch}", types={"a": "Decimal(12, 2)"})
    one = Row(0, "1", "1", Change.ADDED, Action.CREATE, b'{"a":1,"b":2}')
    _, put, _ = asked(File(None, files), batch(Action.CREATE, one))
    assert put.path == f"orders_sync/2026-08-01/12/part-{KEY}.parquet"
    assert put.columns[-2:] == (("a", "decimal(12,2)"), ("b", "string"))
    assert (put.format, put.compression) == ("parquet", "zstd")
    assert FileKeys(format="csv", compression="gzip").ending == ".csv.gz"
    assert moment_of("not a number").year == 1970


def test_rows_that_are_told_once_have_a_key_and_changes_may_be_told_again() -> None:
    assert File().repeat("x", Action.CREATE) is Repeat.WITH_KEY
    assert {File().repeat("x", action) for action in (Action.UPSERT, Action.DELETE)} == {Repeat.ALWAYS}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"path": "{object}/{day}/{batch}"}, '"{day}"'),
        ({"path": "{object}"}, "lacks {batch}"),
        ({"path": "/{batch}"}, "below base_url"),
        ({"path": "../{batch}"}, "below base_url"),
        ({"path": "{batch.__class__}"}, "which is none of"),
        ({"path": "{batch!r}"}, "which is none of"),
        ({"path": "{batch"}, "other half"),
        ({"format": "cvs"}, "jsonl"),
        ({"compression": "snappy"}, "for parquet only"),
        ({"types": {"a": "int64"}}, "has no meaning"),
        ({"format": "parquet", "types": {"a": "int46"}}, 'Did you mean "int64"'),
        ({"format": "parquet", "types": {"a": "decimal(40,2)"}}, "precision of 1 to 38"),
        ({"fromat": "csv"}, 'Did you mean "format"'),
    ],
)
def test_mistakes_are_named_at_load(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        FileKeys.model_validate(keys)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("object_", "mode", "match", "fields", "words"),
    [
        ("../x", Mode.UPSERT, (), ("a",), "cannot be part of a path"),
        ("x", Mode.UPDATE, (), ("a",), "mode 'update'"),
        ("x", Mode.UPSERT, ("id",), ("a",), "take no match"),
        ("x", Mode.UPSERT, (), ("_key",), "writes itself"),
        ("x", Mode.UPSERT, (), ("b",), "'a', which is no field"),
    ],
)
def test_what_cannot_be_is_said_at_load(
    object_: str, mode: Mode, match: tuple[str, ...], fields: tuple[str, ...], words: str
) -> None:
    kind = File(None, FileKeys(format="parquet", types={"a": "int64"}))
    with pytest.raises(Misconfigured, match=words):
        kind.check(object_, mode, match, fields)


@pytest.mark.parametrize(
    ("status", "recovery"),
    [(422, PoisonedBatch), (403, Refused), (404, Refused), (501, Refused), (429, Throttled), (500, Unavailable)],
)
def test_errors_are_classes_by_what_to_do(status: int, recovery: type[DestinationError]) -> None:
    with pytest.raises(recovery, match="its own words"):
        File().classify(Request("PUT", "x"), Response(status, {}, b'{"message": "its own words"}'))
