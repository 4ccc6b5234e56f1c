"""Inserts into the sandbox: every accepted row makes a new record; without an idempotency key, and with one."""

from __future__ import annotations

from typing import ClassVar

from integrations_dagster.destinations.base import Batch, Flow, Repeat, Request
from integrations_dagster.destinations.errors import Unavailable
from integrations_dagster.destinations.sandbox.base import (
    NO_ANSWER,
    SandboxDestination,
    document_of,
    outcome_of,
    results_of,
    rows_json,
    unreadable,
)
from integrations_dagster.vocabulary import Action, Mode, Outcome, Status


class SandboxInsert(SandboxDestination):
    """Takes rows and makes a record of each; a batch that is sent twice makes them twice, and nothing looks them up."""

    kind: ClassVar[str] = "sandbox_insert"
    label: ClassVar[str] = "Sandbox insert"
    modes: ClassVar[frozenset[Mode]] = frozenset({Mode.INSERT, Mode.APPEND})
    sandbox_path: ClassVar[str] = "inserts"

    def repeat(self, object_: str, action: Action) -> Repeat:  # noqa: ARG002
        """Never: the records would be made twice."""
        return Repeat.NEVER

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        """One POST; the results are in the order of the rows."""
        response = yield self._request(batch)
        results = results_of(response, document_of(response))
        request_id = self.request_id(response)
        if not results:
            raise Unavailable(
                f"The sandbox answered {response.status} without saying what became of any row.",
                "SILENT_ANSWER",
                request_id,
            )
        if len(results) != len(batch.rows):
            # Told apart by their order alone, they are of no use if one is missing.
            raise unreadable(response, f"{len(results)} results for {len(batch.rows)} rows")
        silent = Outcome(
            Status.UNSENT, None, NO_ANSWER, "The sandbox's answer does not say what became of this row.", request_id
        )
        return [outcome_of(result, request_id) or silent for result in results]

    def _request(self, batch: Batch) -> Request:
        return Request("POST", f"/{batch.object}", b'{"rows":%b}' % rows_json(batch))


class SandboxInsertKeyed(SandboxInsert):
    """The same with an `Idempotency-Key`: what was answered once to a key is answered again, and not done again."""

    kind: ClassVar[str] = "sandbox_insert_keyed"
    label: ClassVar[str] = "Sandbox insert with key"

    def repeat(self, object_: str, action: Action) -> Repeat:  # noqa: ARG002
        """With its key: the sandbox keeps the first complete answer to a key, and repeats it."""
        return Repeat.WITH_KEY

    def _request(self, batch: Batch) -> Request:
        request = super()._request(batch)
        return Request(request.method, request.path, request.body, {"idempotency-key": batch.idempotency_key})
