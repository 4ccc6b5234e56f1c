"""Syncs to small servers of JSON-RPC and XML-RPC on loopback: refused rows, throttling, outages, lost answers."""

from __future__ import annotations

import json
import threading
import xmlrpc.client
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from integrations_dagster.destinations.registry import KINDS
from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.spec import AuthSpec, DestinationSpec, Env, FieldSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.sync.harness import Bench

TOKEN = "a-session"
BASE: dict[str, Any] = {
    "path": "/rpc",
    "rows": 10,
    "id_type": "integer",
    "search": {"method": "find", "params": ["{match_field}", "{matches}"]},
    "update": {"method": "write", "params": [{"$each": [["{id}"], "{fields}"]}], "answer": "all_rows"},
    "create": {"method": "create", "params": ["{rows}"], "answer": {"results": "@", "id": "@"}},
    "delete": {"method": "delete", "params": ["{ids}"], "answer": "all_rows"},
    "errors": [
        {"code": 1, "as": "rejected", "says": "The store refused the row."},
        {"code": 2, "as": "throttled", "wait": "0.1s"},
        {"code": 3, "as": "unauthorized"},
    ],
}
TOGETHER: dict[str, Any] = {
    "path": "/rpc",
    "rows": 10,
    "batch": True,
    "upsert": {"method": "put", "params": ["{record}"], "answer": {"id": "@"}},
    "delete": {"method": "drop", "params": ["{match}"]},
    "errors": BASE["errors"],
}


class Failed(Exception):
    """A call that is answered with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Store:
    """A server of both protocols that keeps people by id; a call of several rows is done whole or not at all.

    Attributes:
        before: Called with each request's method before it is done; may raise `Failed`.
        after: Called after it is done; True: the connection breaks instead of an answer.
    """

    def __init__(self) -> None:
        self.records: dict[int, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.requests = 0
        self.logins = 0
        self.before: Callable[[str], None] = lambda _method: None
        self.after: Callable[[str], bool] = lambda _method: False
        self._lock = threading.Lock()
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/login":
                    store.logins += 1
                    self._answer(200, "application/json", json.dumps({"result": {"sid": TOKEN}}).encode())
                    return
                if self.headers.get("X-Session") != TOKEN:
                    self._answer(401, "text/plain", b"")
                    return
                with store._lock:
                    store.requests += 1
                    kind = "text/xml" if "xml" in self.headers["Content-Type"] else "application/json"
                    first = len(store.asked)
                    answer = store.xml(body) if kind == "text/xml" else store.json(body)
                    broken = sum(store.after(method) for method in store.asked[first:]) > 0
                if broken:
                    self.close_connection = True
                else:
                    self._answer(200, kind, answer)

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def json(self, body: bytes) -> bytes:
        sent = json.loads(body)
        calls = sent if isinstance(sent, list) else [sent]
        answers = []
        for call in calls:
            try:
                said: dict[str, Any] = {"result": self.call(call["method"], call["params"])}
            except Failed as error:
                said = {"error": {"code": error.code, "message": str(error)}}
            answers.append({"jsonrpc": "2.0", "id": call["id"], **said})
        # In any order is as good.
        return json.dumps(answers[::-1] if isinstance(sent, list) else answers[0]).encode()

    def xml(self, body: bytes) -> bytes:
        params, method = xmlrpc.client.loads(body)
        assert method is not None
        try:
            if method == "system.multicall":
                calls: Any = params[0]
                result: Any = [self._one(call) for call in calls]
            else:
                result = self.call(method, list(params))
        except Failed as error:
            fault = xmlrpc.client.Fault(error.code, str(error))
            return xmlrpc.client.dumps(fault, methodresponse=True).encode()
        return xmlrpc.client.dumps((result,), methodresponse=True, allow_none=True).encode()

    def _one(self, call: Any) -> Any:
        try:
            return [self.call(call["methodName"], call["params"])]
        except Failed as error:
            return {"faultCode": error.code, "faultString": str(error)}

    def call(self, method: str, params: list[Any]) -> Any:
        """One call: a transaction."""
        self.asked.append(method)
        self.before(method)
        if method == "find":
            field, values = params
            return [{"id": id_, **record} for id_, record in self.records.items() if record[field] in values]
        if method == "create":
            return [self._add(record) for record in _checked(params[0])]
        if method == "put":
            (record,) = _checked(params)
            known = [id_ for id_, other in self.records.items() if other["email"] == record["email"]]
            if known:
                self.records[known[0]].update(record)
            return known[0] if known else self._add(record)
        if method == "write":
            _checked(params[1::2])
            for (id_,), fields in zip(params[::2], params[1::2], strict=True):
                self.records[id_].update(fields)
        elif method == "delete":
            for id_ in params[0]:
                del self.records[id_]
        else:
            self.records = {id_: record for id_, record in self.records.items() if record["email"] != params[0]}
        return None

    def _add(self, record: dict[str, Any]) -> int:
        id_ = len(self.asked) * 100 + len(self.records)
        self.records[id_] = dict(record)
        return id_

    def people(self) -> list[tuple[str, str]]:
        return sorted((record["email"], record["name"]) for record in self.records.values())


def _checked(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for record in records:
        if str(record.get("name", "")).startswith("bad"):
            raise Failed(1, f"{record['name']} is no name")
    return records


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(params=["jsonrpc", "xmlrpc"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def people(kind: str, api: dict[str, Any], bench: Bench, store: Store, mode: Mode = Mode.MIRROR) -> SyncSpec:
    options = KINDS[kind].options
    assert options is not None
    bench.env["PASSWORD"] = "s3cret-password"
    auth = AuthSpec(
        "session",
        {
            "login_path": "/login",
            "username": "me",
            "password": Env("PASSWORD"),
            "token_path": "result.sid",
            "header": "X-Session: {token}",
        },
    )
    target = TargetSpec("sandbox", base_url=store.url, auth=auth)
    return SyncSpec(
        name="people",
        model=bench.model("people", "SELECT * FROM people"),
        destination=DestinationSpec("erp", kind, target, 1.0, 2, option=options[1].model_validate(api), backoff=0.01),
        object="person",
        mode=mode,
        match={"email": "email"},
        fields=(FieldSpec("name", "name"),),
    )


def load(bench: Bench, *names: str) -> list[tuple[str, str]]:
    """Put people into the warehouse; returns what the store should have of them."""
    rows: list[dict[str, Any]] = [
        {"id": number, "email": f"p{number}@x.org", "name": name} for number, name in enumerate(names)
    ]
    bench.load("people", rows, {"id": "BIGINT", "email": "VARCHAR", "name": "VARCHAR"})
    return sorted((row["email"], row["name"]) for row in rows if not row["name"].startswith("bad"))


def done(report: RunReport) -> dict[Status, int]:
    return {status: count for status, count in report.outcomes.items() if count}


@pytest.mark.parametrize("api", [BASE, TOGETHER], ids=["at once", "together"])
def test_a_mirror_with_bad_rows_among_the_good(kind: str, api: dict[str, Any], bench: Bench, store: Store) -> None:
    sync = people(kind, api, bench, store)
    wanted = load(bench, *(f"bad {n}" if n in (3, 4, 17) else f"Zoë <{n}>" for n in range(25)))
    report = bench.run(sync)
    assert done(report) == {Status.CREATED: 22, Status.REJECTED: 3}
    assert store.people() == wanted
    assert sorted(row.key for row in report.bad_rows) == ["17", "3", "4"]
    reasons = {row.reason for row in report.bad_rows}
    assert "The store refused the row. The API says: bad 17 is no name" in reasons
    wanted = load(bench, *(f"Ann {n}" if n < 5 else f"Zoë <{n}>" for n in range(22)))
    report = bench.run(sync)
    assert (report.outcomes[Status.DELETED], report.outcomes[Status.REJECTED]) == (3, 0)
    assert store.people() == wanted
    assert bench.run(sync).traffic.requests == 0


def test_throttling_inside_a_200_is_waited_out(kind: str, bench: Bench, store: Store) -> None:
    left = [3]

    def before(_method: str) -> None:
        if left[0] and store.requests > 1:
            left[0] -= 1
            raise Failed(2, "slower, please")

    store.before = before
    wanted = load(bench, *(f"Name {n}" for n in range(12)))
    report = bench.run(people(kind, BASE, bench, store))
    assert done(report) == {Status.CREATED: 12}
    assert store.people() == wanted
    assert report.traffic.throttled == 3


def test_a_session_that_ends_inside_a_200_is_opened_anew(kind: str, bench: Bench, store: Store) -> None:
    ended = ["create"]

    def before(method: str) -> None:
        if method in ended:
            ended.remove(method)
            raise Failed(3, "session expired")

    store.before = before
    wanted = load(bench, *(f"Name {n}" for n in range(5)))
    report = bench.run(people(kind, BASE, bench, store))
    assert done(report) == {Status.CREATED: 5}
    assert store.people() == wanted
    assert store.logins == 2
    assert report.traffic.errors == {"unauthorized": 1}


def test_a_create_whose_answer_is_lost_makes_no_record_twice(kind: str, bench: Bench, store: Store) -> None:
    lost = ["create", "write"]

    def after(method: str) -> bool:
        return method in lost and not lost.remove(method)  # type: ignore[func-returns-value]

    store.after = after
    wanted = load(bench, *(f"Name {n}" for n in range(8)))
    sync = people(kind, BASE, bench, store)
    report = bench.run(sync)
    # It was made by the request whose answer was lost, found by the next look-up, and written once more.
    assert done(report) == {Status.UPDATED: 8}
    assert store.people() == wanted
    assert [method for method in store.asked if method != "find"] == ["create", "write", "write"]
    assert bench.run(sync).traffic.requests == 0


def test_inserts_whose_answer_is_lost_are_looked_up(kind: str, bench: Bench, store: Store) -> None:
    lost = ["create"]
    store.after = lambda method: method in lost and not lost.remove(method)  # type: ignore[func-returns-value]
    wanted = load(bench, *(f"Name {n}" for n in range(8)))
    sync = people(kind, BASE, bench, store, Mode.INSERT)
    assert done(bench.run(sync)) == {Status.IN_DOUBT: 8}
    assert len(bench.doubtful(sync)) == 8
    bench.run(sync)
    assert bench.doubtful(sync) == []
    assert store.people() == wanted
    assert store.asked.count("create") == 1


def test_an_outage_stops_and_the_next_run_delivers_the_rest(kind: str, bench: Bench, store: Store) -> None:
    down = [True]

    def before(method: str) -> None:
        if down[0] and method == "create":
            raise Failed(99, "database is locked")

    store.before = before
    wanted = load(bench, *(f"Name {n}" for n in range(8)))
    sync = people(kind, BASE, bench, store)
    report = bench.run(sync)
    assert done(report) == {Status.UNSENT: 8}
    assert "`api.errors` of the destination does not list" in " ".join(report.failures)
    assert "database is locked" in " ".join(report.failures)
    down[0] = False
    assert done(bench.run(sync)) == {Status.CREATED: 8}
    assert store.people() == wanted
