"""Destinations that are broken on purpose, each in one way, and the checks that must see it: these and no others."""

from __future__ import annotations

import json
import uuid
from typing import Any, ClassVar

from integrations_dagster.destinations.base import Batch, Flow, Limits, Repeat, Request, Response
from integrations_dagster.destinations.error_table import asked_wait
from integrations_dagster.destinations.errors import Throttled
from integrations_dagster.vocabulary import Action, Mode, Outcome, Row, Status
from integrations_dagster_tests.testing.notes import Looking, Notes

EXPECTED: dict[type[Notes], frozenset[str]] = {}
"""Class to ids of the cases that it fails, the seed left out."""

INSERT: frozenset[Mode] = frozenset({Mode.INSERT})
UPSERT: frozenset[Mode] = frozenset({Mode.UPSERT})
UPDATE: frozenset[Mode] = frozenset({Mode.UPSERT, Mode.UPDATE})
DELETE: frozenset[Mode] = frozenset({Mode.INSERT, Mode.DELETE})
MIRROR: frozenset[Mode] = frozenset({Mode.MIRROR})


def fails(*ids: str) -> Any:
    """Say which cases a class fails."""

    def add(cls: type[Notes]) -> type[Notes]:
        EXPECTED[cls] = frozenset(ids)
        return cls

    return add


def _with_status(outcomes: list[Outcome], order: list[int]) -> list[Outcome]:
    """The outcomes, those of other rows, with the record ids where they belong."""
    given = [outcomes[place] for place in order]
    return [
        Outcome(new.status, old.destination_id or f"id-{place}", new.code, new.reason, new.request_id)
        for place, (old, new) in enumerate(zip(outcomes, given, strict=True))
    ]


@fails("partial_failure[upsert]")
class ShiftedByOne(Notes):
    """Each row is told what became of the next."""

    modes = UPSERT

    def ordered(self, outcomes: list[Outcome]) -> list[Outcome]:
        return _with_status(outcomes, [*range(1, len(outcomes)), 0])


@fails("partial_failure[create]")
class Reversed(Notes):
    """Outcomes are told in the wrong order."""

    modes = INSERT

    def ordered(self, outcomes: list[Outcome]) -> list[Outcome]:
        return _with_status(outcomes, [*reversed(range(len(outcomes)))])


@fails("end_state[mirror]")
class IdsOfOthers(Notes):
    """Each row is given the record id of the next; what is deleted by id is another record then."""

    modes = MIRROR

    def ordered(self, outcomes: list[Outcome]) -> list[Outcome]:
        ids = [outcome.destination_id for outcome in outcomes]
        moved = [*ids[1:], ids[0]]
        return [
            Outcome(o.status, id_ or o.destination_id, o.code, o.reason, o.request_id)
            for o, id_ in zip(outcomes, moved, strict=True)
        ]


@fails("all_accepted[upsert]")
class OneIdForAll(Notes):
    """Every row of a request has the same record id."""

    modes = UPSERT

    def ordered(self, outcomes: list[Outcome]) -> list[Outcome]:
        return [Outcome(o.status, "the-batch", o.code, o.reason, o.request_id) for o in outcomes]


@fails("all_accepted[create]")
class WrongWord(Notes):
    """What was created is told as updated."""

    modes = INSERT

    def ordered(self, outcomes: list[Outcome]) -> list[Outcome]:
        said = {Status.CREATED: Status.UPDATED}
        return [
            Outcome(said.get(o.status, o.status), o.destination_id, o.code, o.reason, o.request_id) for o in outcomes
        ]


@fails("silent_answers[upsert]")
class Trusts2xx(Notes):
    """A 2xx without results takes all rows."""

    modes = UPSERT

    def results(self, batch: Batch, response: Response) -> dict[str, dict[str, Any]]:
        document = self.document(response)
        if isinstance(document, dict) and "results" not in document:
            return {row.key: {"status": "updated", "id": None} for row in batch.rows}
        return super().results(batch, response)


@fails("unknown_answers[upsert]")
class UnreadableIsSuccess(Notes):
    """A 2xx that cannot be read takes all rows."""

    modes = UPSERT

    def results(self, batch: Batch, response: Response) -> dict[str, dict[str, Any]]:
        try:
            return super().results(batch, response)
        except ValueError:
            if not response.body:
                raise
            return {row.key: {"status": "updated", "id": None} for row in batch.rows}


@fails("unknown_answers[upsert]", "silent_answers[upsert]", "unsafe_repeats[upsert]")
class UnreadableIsRejected(Notes):
    """A 2xx that cannot be read rejects all rows."""

    modes = UPSERT

    def results(self, batch: Batch, response: Response) -> dict[str, dict[str, Any]]:
        try:
            return super().results(batch, response)
        except (ValueError, KeyError, TypeError):
            return {row.key: {"status": "error", "code": "ODD", "message": "Odd."} for row in batch.rows}


@fails("missing_results[upsert]")
class UnmentionedIsSuccess(Notes):
    """A row that the answer leaves out counts as accepted."""

    modes = UPSERT

    def outcome(self, row: Row, result: dict[str, Any] | None, response: Response) -> Outcome:
        return Outcome(Status.UPDATED) if result is None else super().outcome(row, result, response)


@fails("limits[upsert]")
class RowsUnlimited(Notes):
    """Says that a request takes more rows than it does."""

    modes = UPSERT

    def limits(self, object_: str, action: Action) -> Limits:
        return Limits(rows=1000, bytes=super().limits(object_, action).bytes)


@fails("limits[upsert]")
class BytesUnlimited(Notes):
    """Sends every value twice, and does not count it."""

    modes = UPSERT

    def row(self, action: Action, row: Row) -> dict[str, Any]:
        return {**super().row(action, row), "before": row.payload}


@fails("unsafe_repeats[create]")
class UnsafeMarkedSafe(Notes):
    """Says that a request may be repeated which makes records twice."""

    modes = INSERT

    def repeat(self, object_: str, action: Action) -> Repeat:
        return Repeat.ALWAYS

    def headers(self, batch: Batch) -> dict[str, str]:
        return {}


@fails("unsafe_repeats[create]")
class KeyOfItsOwn(Notes):
    """Makes a new idempotency key whenever a batch is sent again."""

    modes = INSERT

    def headers(self, batch: Batch) -> dict[str, str]:
        return {"idempotency-key": uuid.uuid4().hex}


@fails("verify")
class FindsNothing(Looking):
    """Says of every row in doubt that it is not there."""

    def found(self, id_: str | None) -> Outcome | None:
        return None


class _Lenient(Notes):
    """Reads answers with these statuses as rejections."""

    statuses: ClassVar[tuple[int, ...]] = ()
    modes = UPSERT

    def classify(self, request: Request, response: Response) -> None:
        if response.status not in self.statuses:
            super().classify(request, response)

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        response = yield Request("POST", f"/{batch.object}", self.body(batch), self.headers(batch))
        if response.status in self.statuses:
            return [Outcome(Status.REJECTED, None, str(response.status), "It was refused.")] * len(batch.rows)
        results = self.results(batch, response)
        return [self.outcome(row, results.get(row.key), response) for row in batch.rows]


@fails("throttled[upsert]")
class ThrottledIsRejected(_Lenient):
    """Too many requests: the rows are rejected."""

    statuses = (429,)


@fails("expired[upsert]")
class ExpiredIsRejected(_Lenient):
    """The token has expired: the rows are rejected."""

    statuses = (401,)


@fails("outage[upsert]", "later_run")
class OutageIsRejected(_Lenient):
    """The server is out of order: the rows are rejected."""

    statuses = (503,)


@fails("throttled[upsert]")
class NeverWaits(Notes):
    """Does not wait as long as it is asked to."""

    modes = UPSERT

    def classify(self, request: Request, response: Response) -> None:
        if response.status == 429:
            raise Throttled("Too many requests.", wait=(asked_wait(response.headers) or 0.0) * 0.1)
        super().classify(request, response)


@fails("all_rejected[upsert]", "partial_failure[upsert]")
class RejectedIsCreated(Notes):
    """Rows that were rejected count as created."""

    modes = UPSERT

    def rejection(self, result: dict[str, Any], id_: str) -> Outcome:
        return Outcome(Status.CREATED, None, request_id=id_)


@fails("messages")
class MessageLost(Notes):
    """Why a row was rejected is not told."""

    modes = UPSERT

    def rejection(self, result: dict[str, Any], id_: str) -> Outcome:
        return Outcome(Status.REJECTED, None, result["code"], "", id_)


@fails("messages")
class MessageForMachines(Notes):
    """Why a row was rejected is told as it came."""

    modes = UPSERT

    def rejection(self, result: dict[str, Any], id_: str) -> Outcome:
        return Outcome(Status.REJECTED, None, result["code"], f"Rejected: {result}", id_)


@fails("request_ids")
class RequestUnnamed(Notes):
    """The vendor's id of the request is lost."""

    modes = UPSERT

    def request_id(self, response: Response) -> str:
        return ""


@fails("nulls[upsert]")
class NullIsNone(Notes):
    """A null is sent as a text."""

    modes = UPSERT

    def row(self, action: Action, row: Row) -> dict[str, Any]:
        fields = {name: "None" if value is None else value for name, value in row.payload.items()}
        return {"key": row.key, "fields": fields}


@fails("nulls[upsert]")
class NullsDropped(Notes):
    """A null that is to empty a field is left out."""

    modes = UPSERT

    def row(self, action: Action, row: Row) -> dict[str, Any]:
        return {"key": row.key, "fields": {n: v for n, v in row.payload.items() if v is not None}}


@fails("unicode[upsert]")
class Mangled(Notes):
    """Texts are sent in an encoding that the server does not expect."""

    modes = UPSERT

    def body(self, batch: Batch) -> bytes:
        return super().body(batch).decode().encode("latin-1", "replace").decode("latin-1").encode()


@fails("end_state[delete]", "missing_records[delete]", "unsafe_repeats[delete]")
class DeletesNothing(Notes):
    """Names records in letters that the server does not know, and takes their absence for success."""

    modes = DELETE

    def row(self, action: Action, row: Row) -> dict[str, Any]:
        return {"key": row.key.upper()} if action is Action.DELETE else super().row(action, row)

    def results(self, batch: Batch, response: Response) -> dict[str, dict[str, Any]]:
        return {key.lower(): result for key, result in super().results(batch, response).items()}


@fails("missing_records[delete]", "unsafe_repeats[delete]")
class AbsentIsRejected(Notes):
    """A record that is not there cannot be deleted, it says; nor one that an earlier attempt has deleted."""

    modes = DELETE

    def outcome(self, row: Row, result: dict[str, Any] | None, response: Response) -> Outcome:
        if result is not None and result["status"] == "deleted" and result["id"] is None:
            return Outcome(Status.REJECTED, None, "ABSENT", "There is no such note.")
        return super().outcome(row, result, response)


@fails("end_state[update]", "missing_records[modify]")
class UpdateCreates(Notes):
    """An update makes the record that is not there."""

    modes = UPDATE

    def body(self, batch: Batch) -> bytes:
        return super().body(batch).replace(b'"action": "modify"', b'"action": "upsert"')

    def results(self, batch: Batch, response: Response) -> dict[str, dict[str, Any]]:
        said = super().results(batch, response)
        if batch.action is Action.MODIFY:
            said = {k: {**r, "status": "updated"} if r["status"] == "created" else r for k, r in said.items()}
        return said


@fails("references")
class SamePageAgain(Notes):
    """The cursor of a page leads back to it."""

    modes = UPSERT

    def cursor(self, document: dict[str, Any]) -> str | None:
        return "2"


@fails("declaration")
class TakesAnything(Notes):
    """Sends what is no number."""

    modes = UPSERT

    def encode(self, value: Any) -> Any:
        try:
            return super().encode(value)
        except ValueError:
            return json.dumps(value, default=str)
