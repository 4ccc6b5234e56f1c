"""A small API, its destination as it should be, and the subject of both: what others are broken from."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from integrations_dagster.destinations.base import (
    NO_RECORD,
    Batch,
    Destination,
    Flow,
    Limits,
    Repeat,
    Request,
    Response,
)
from integrations_dagster.destinations.error_table import ErrorEntry, Problem, asked_wait, raise_for, shorten
from integrations_dagster.destinations.errors import Refused, Throttled, TooLarge, Unauthorized, Unavailable
from integrations_dagster.destinations.reading import Page, Reference
from integrations_dagster.destinations.values import json_value
from integrations_dagster.testing import Answer, Subject
from integrations_dagster.vocabulary import Action, Misconfigured, Mode, Outcome, Row, Status

MOST_ROWS = 20
MOST_BYTES = 30_000
TOKEN = "notes-token-5d1f"
TABLE = (
    ErrorEntry("401", Unauthorized, "The token is not accepted.", "Set the target's token anew."),
    ErrorEntry("413", TooLarge, "The request is too large."),
    ErrorEntry("429", Throttled, "Too many requests."),
    ErrorEntry("4xx", Refused, "The request was refused.", "Read the API's documentation."),
    ErrorEntry("5xx", Unavailable, "The API is out of order."),
    ErrorEntry("3xx", Refused, "The address has moved.", "Correct `base_url`."),
    ErrorEntry("1xx", Unavailable, "The answer cannot be understood."),
)


class Notes(Destination):
    """The destination as it should be."""

    kind: ClassVar[str] = "notes"
    label: ClassVar[str] = "Notes"
    modes: ClassVar[frozenset[Mode]] = frozenset(Mode)
    auth: ClassVar[str] = "bearer"
    in_sandbox: ClassVar[bool] = False

    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:
        if mode not in self.modes:
            raise Misconfigured(f"Notes: no mode {mode.value!r}.", f"Possible: {', '.join(sorted(self.modes))}.")

    def limits(self, object_: str, action: Action) -> Limits:
        return Limits(rows=MOST_ROWS, bytes=MOST_BYTES)

    def match_normalization(self, object_: str, match_field: str) -> str:
        return "exact"

    def repeat(self, object_: str, action: Action) -> Repeat:
        return Repeat.WITH_KEY if action is Action.CREATE else Repeat.ALWAYS

    def encode(self, value: Any) -> Any:
        return json_value(value)

    def identify(self) -> None:
        return None

    def classify(self, request: Request, response: Response) -> None:
        if not 200 <= response.status < 300:
            try:
                message = shorten(str(response.json()["error"]))
            except (ValueError, KeyError, TypeError):
                message = ""
            problem = Problem(response.status, (), message, wait=asked_wait(response.headers))
            raise_for(TABLE, self.label, problem)

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        response = yield Request("POST", f"/{batch.object}", self.body(batch), self.headers(batch))
        results = self.results(batch, response)
        return self.ordered([self.outcome(row, results.get(row.key), response) for row in batch.rows])

    # What the broken ones break

    def headers(self, batch: Batch) -> dict[str, str]:
        return {"idempotency-key": batch.idempotency_key} if batch.action is Action.CREATE else {}

    def body(self, batch: Batch) -> bytes:
        rows = [self.row(batch.action, row) for row in batch.rows]
        return json.dumps({"action": batch.action.value, "rows": rows}, ensure_ascii=False).encode()

    def row(self, action: Action, row: Row) -> dict[str, Any]:
        if action is Action.DELETE:
            return {"key": row.key} | ({"id": row.destination_id} if row.destination_id else {})
        return {"key": row.key, "fields": row.payload}

    def results(self, batch: Batch, response: Response) -> dict[str, dict[str, Any]]:
        return {result["key"]: result for result in self.document(response)["results"]}

    def document(self, response: Response) -> Any:
        return response.json()

    def outcome(self, row: Row, result: dict[str, Any] | None, response: Response) -> Outcome:
        id_ = self.request_id(response)
        if result is None:
            return Outcome(Status.UNSENT, None, "NO_ANSWER", "The answer does not mention the row.", id_)
        if result["status"] == "error":
            return self.rejection(result, id_)
        return Outcome(Status(result["status"]), result["id"], request_id=id_)

    def rejection(self, result: dict[str, Any], id_: str) -> Outcome:
        code = NO_RECORD if result["code"] == "ABSENT" else result["code"]
        return Outcome(Status.REJECTED, None, code, shorten(result["message"]), id_)

    def ordered(self, outcomes: list[Outcome]) -> list[Outcome]:
        return outcomes

    # Reading

    def references(self) -> tuple[Reference, ...]:
        return (Reference("authors", "id", "name", ("id", "name")),)

    def read(self, reference: str, columns: Sequence[str], cursor: str | None) -> Flow[Page]:
        response = yield Request("GET", f"/authors?after={cursor or ''}")
        document = response.json()
        return Page(tuple(document["authors"]), self.cursor(document))

    def cursor(self, document: dict[str, Any]) -> str | None:
        return document["next"]  # type: ignore[no-any-return]


class Looking(Notes):
    """The same without a key: rows in doubt are looked up."""

    modes: ClassVar[frozenset[Mode]] = frozenset({Mode.INSERT})

    def repeat(self, object_: str, action: Action) -> Repeat:
        return Repeat.NEVER

    def headers(self, batch: Batch) -> dict[str, str]:
        return {}

    def can_verify(self, object_: str, match: Sequence[str]) -> bool:
        return True

    def verify(self, batch: Batch) -> Flow[list[Outcome | None]]:
        body = json.dumps({"keys": [row.key for row in batch.rows]}).encode()
        response = yield Request("POST", f"/{batch.object}/find", body, reads=True)
        found = response.json()["found"]
        return [self.found(found.get(row.key)) for row in batch.rows]

    def found(self, id_: str | None) -> Outcome | None:
        return Outcome(Status.CREATED, id_) if id_ else None


class NotesServer(http.server.ThreadingHTTPServer):
    """The API: POST /notes takes rows, each of which it accepts or not."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.records: dict[str, tuple[str, dict[str, Any]]] = {}
        self.kept: dict[str, Any] = {}
        self.requests = 0

    def take(self, action: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{"key": row["key"], **self._take(action, row)} for row in rows]

    def _take(self, action: str, row: Mapping[str, Any]) -> dict[str, Any]:
        key, fields = row["key"], row.get("fields", {})
        if fields.get("mood") == "sour":
            return {"status": "error", "code": "INVALID", "message": "A note's mood is not sour."}
        # Of several records of one key the newest is meant; a create makes another in any case.
        there = next((id_ for id_, (k, _) in reversed(self.records.items()) if k == key), None)
        if action == "delete":
            id_ = row.get("id", there)
            gone = self.records.pop(id_, None)
            return {"status": "deleted", "id": id_ if gone else None}
        if action == "modify" and there is None:
            return {"status": "error", "code": "ABSENT", "message": "There is no such note."}
        if action == "create" or there is None:
            id_ = f"n{len(self.kept)}-{self.requests}-{len(self.records)}-{key}"
            self.records[id_] = (key, {})
            status = "created"
        else:
            id_, status = there, "updated"
        merged = {**self.records[id_][1], **fields}
        self.records[id_] = (key, {name: value for name, value in merged.items() if value is not None})
        return {"status": status, "id": id_}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: NotesServer

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        after = int(parse_qs(urlsplit(self.path).query).get("after", ["0"])[0] or 0)
        authors = [{"id": str(n), "name": f"Author {n}"} for n in range(after + 1, min(after + 3, 6))]
        self._answer(200, {"authors": authors, "next": str(after + 2) if after + 2 < 5 else None})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.requests += 1
            self._answer(*self._post(raw))

    def _post(self, raw: bytes) -> tuple[int, Any]:
        if self.headers["authorization"] != f"Bearer {TOKEN}":
            return 401, {"error": "no"}
        body = json.loads(raw)
        if self.path.endswith("/find"):
            known = {key: id_ for id_, (key, _) in self.server.records.items()}
            return 200, {"found": {key: known[key] for key in body["keys"] if key in known}}
        if len(body["rows"]) > MOST_ROWS or len(raw) > MOST_BYTES:
            return 413, {"error": "too large"}
        key = self.headers["idempotency-key"]
        if key in self.server.kept:
            return 200, self.server.kept[key]
        answer = {"results": self.server.take(body["action"], body["rows"])}
        if key:
            self.server.kept[key] = answer
        return 200, answer

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response_only(status)
        self.send_header("content-type", "application/json")
        self.send_header("x-request-id", f"request-{self.server.requests}")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class NotesSubject(Subject):
    """Notes, delivered by a class."""

    object = "notes"
    text = "words"
    longest = 1000
    token = TOKEN
    request_id = "x-request-id"
    patience = 0.3
    server: NotesServer

    def __init__(self, destination: type[Destination] = Notes, wait: float = 0.2) -> None:
        self.destination = destination  # type: ignore[misc]  # one subject for many classes
        self.takes = Limits(rows=MOST_ROWS, bytes=MOST_BYTES)
        self.wait = wait
        self.throttled = Answer.json(429, {"error": "slow down"}, retry_after=str(wait))

    @contextmanager
    def serve(self) -> Iterator[str]:
        with NotesServer() as self.server:
            thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
            thread.start()
            yield f"http://127.0.0.1:{self.server.server_port}"
            self.server.shutdown()
            thread.join()

    def reset(self) -> None:
        self.server.reset()

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield from list(self.server.records.values())

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"words": f"Words {version}", "mood": "sweet", "stars": 3.5}

    def bad(self, key: str, version: int) -> dict[str, Any]:
        return {**self.good(key, version), "mood": "sour"}
