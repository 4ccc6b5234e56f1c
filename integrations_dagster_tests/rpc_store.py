"""A small server of JSON-RPC and XML-RPC on loopback, and what YAML says of its calls."""

from __future__ import annotations

import itertools
import json
import threading
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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
        {"code": 4, "as": "missing"},
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
        self._ids = itertools.count(1)
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
            self._there([id_ for ids in params[::2] for id_ in ids])
            for (id_,), fields in zip(params[::2], params[1::2], strict=True):
                self.records[id_].update(fields)
        elif method == "delete":
            self._there(params[0])
            for id_ in params[0]:
                del self.records[id_]
        else:
            self.records = {id_: record for id_, record in self.records.items() if record["email"] != params[0]}
        return None

    def _there(self, ids: list[int]) -> None:
        for id_ in ids:
            if id_ not in self.records:
                raise Failed(4, f"there is no record {id_}")

    def _add(self, record: dict[str, Any]) -> int:
        id_ = next(self._ids)
        self.records[id_] = dict(record)
        return id_

    def people(self) -> list[tuple[str, str]]:
        return sorted((record["email"], record["name"]) for record in self.records.values())


def _checked(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for record in records:
        if str(record.get("name", "")).startswith("bad"):
            raise Failed(1, f"{record['name']} is no name")
    return records


@contextmanager
def running_store() -> Iterator[Store]:
    """A store that is served while in the context."""
    store = Store()
    try:
        yield store
    finally:
        store.server.shutdown()
        store.server.server_close()
