"""POST /inserts/{name}/{object}: every accepted row makes a new record, once for each idempotency key if there is one.

`{"rows": [{"key", "record"}]}` is answered by `{"results": [...]}` in the order of the rows: `{"id", "status"}` or
`{"error": {"code", "message"}}`. A value "poison" refuses the whole batch.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from integrations_dagster.sandbox.answers import Answer, json_answer
from integrations_dagster.sandbox.api import Api, Call, error_answer
from integrations_dagster.sandbox.row_store import KeptAnswer
from integrations_dagster.sandbox.settings import Settings
from integrations_dagster.sandbox.store import Store

POISON = "poison"
"""A value that no batch may hold."""


class Inserts(Api):
    """The inserts.

    Args:
        store: The state.
        settings: `insert_bytes` and `key_seconds` in force.
    """

    prefix: ClassVar[str] = "/inserts/"
    gzip: ClassVar[bool] = True

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def handle(self, call: Call) -> Answer:
        parts = call.path.removeprefix(self.prefix).split("/")
        if len(parts) != 2 or not all(parts):
            return error_answer(404, "NOT_FOUND", "Rows are POSTed to /inserts/{name}/{object}.")
        if call.method != "POST":
            return error_answer(405, "METHOD_NOT_ALLOWED", "Rows are POSTed.")
        name, object_ = parts
        key = call.headers.get("idempotency-key", "")
        with self._store.transaction():
            return self._once(call, name, object_, key) if key else self._insert(call, name, object_)

    def empty(self, call: Call) -> Answer:  # noqa: ARG002
        return json_answer(200, {"results": []})

    def _once(self, call: Call, name: str, object_: str, key: str) -> Answer:
        rows, now = self._store.rows, time.time()
        # The address belongs to what a key stands for, like the body.
        digest = hashlib.sha256(f"{object_}\n".encode() + call.body).hexdigest()
        kept = rows.kept(name, key, now - self._settings.key_seconds)
        if kept is None:
            answer = self._insert(call, name, object_)
            rows.keep(name, key, KeptAnswer(digest, answer.status, answer.body, answer.failed_rows), now)
            return answer
        same = kept.digest == digest
        rows.count_key(name, key, replayed=same)
        if not same:
            return error_answer(422, "IDEMPOTENCY_KEY_REUSED", "The Idempotency-Key was used for another body.")
        return Answer(kept.status, kept.body, {"idempotency-replayed": "true"}, failed_rows=kept.failed_rows)

    def _insert(self, call: Call, name: str, object_: str) -> Answer:
        refusal = refused(call, self._settings.insert_bytes)
        if refusal is not None:
            return refusal
        rows = call.document["rows"]
        if any(poisoned(row) for row in rows):
            answer = error_answer(400, "BAD_BATCH", "A row of the batch holds a value that cannot be taken.")
            answer.failed_rows = len(rows)
            return answer
        errors = [rejection(row, call.rejections) for row in rows]
        taken = [(row["key"], row["record"]) for row, error in zip(rows, errors, strict=True) if error is None]
        ids = iter(self._store.rows.insert(name, object_, taken, time.time()))
        results = [
            {"error": error} if error is not None else {"id": record_id(next(ids)), "status": "created"}
            for error in errors
        ]
        return json_answer(200, {"results": results}, failed_rows=len(rows) - len(taken))


def refused(call: Call, most: int) -> Answer | None:
    """The answer to a body that is too large or no rows; None for a good one."""
    if len(call.body) > most:
        return error_answer(413, "TOO_LARGE", f"The body has {len(call.body)} bytes; {most} are taken.")
    rows = call.document.get("rows") if isinstance(call.document, dict) else None
    good = isinstance(rows, list) and all(
        isinstance(row, dict) and isinstance(row.get("key"), str) and isinstance(row.get("record"), dict)
        for row in rows
    )
    if not good:
        return error_answer(400, "INVALID_BODY", "The body must be JSON with rows, each with a key and a record.")
    if _half_a_pair(call.body):
        return error_answer(400, "INVALID_BODY", "The body names half of a surrogate pair, which is no text.")
    return None


def poisoned(row: Mapping[str, Any]) -> bool:
    """Whether a row has a value that no batch may hold."""
    return POISON in row["record"].values()


def rejection(row: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
    """The error of a row that a `reject_rows` fault names, or None."""
    if not rules:
        return None
    text = json.dumps(row, ensure_ascii=False)
    for rule in rules:
        if str(rule["with"]) in text:
            return {
                "code": str(rule.get("code", "REJECTED")),
                "message": str(rule.get("message", "The row was rejected on demand.")),
            }
    return None


def record_id(number: int) -> str:
    """The id of a record, as answers show it."""
    return f"rec-{number}"


def _half_a_pair(body: bytes) -> bool:
    # Only an escape can name one; decoding the body again costs nothing where there is none.
    if b"\\ud" not in body and b"\\uD" not in body:
        return False
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
