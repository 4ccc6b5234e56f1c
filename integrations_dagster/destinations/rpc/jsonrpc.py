"""JSON-RPC (www.jsonrpc.org): calls as JSON over HTTP, one in a request or a batch, from YAML alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from integrations_dagster.destinations.answers import document_of, unreadable
from integrations_dagster.destinations.base import Response
from integrations_dagster.destinations.paths import as_text
from integrations_dagster.destinations.rpc.calls import Answer, Call, Expected, Reply
from integrations_dagster.destinations.rpc.destination import Rpc
from integrations_dagster.destinations.rpc.forms import RpcKeys
from integrations_dagster.destinations.values import canonical_json
from integrations_dagster.keys import Keys


class JsonRpcKeys(RpcKeys):
    """How an API of JSON-RPC is spoken."""

    version: Literal["2.0", "1.0"] = Field(
        default="2.0",
        description='Dialect: 2.0 has "jsonrpc" in each call; 1.0 has not, and takes parameters by position.',
    )


class JsonRpc(Rpc):
    """An API that speaks JSON-RPC.

    A call is `{"id", "method", "params"}` ("jsonrpc": "2.0" beside them), answered with `result` or `error` under its
    id, whatever the status. A batch is an array of calls; its answers come in any order.
    """

    kind: ClassVar[str] = "jsonrpc"
    label: ClassVar[str] = "JSON-RPC"
    options: ClassVar[tuple[str, type[Keys]] | None] = ("api", JsonRpcKeys)
    option: JsonRpcKeys

    def write(self, calls: Sequence[Call], *, together: bool) -> tuple[bytes, dict[str, str]]:
        version = {"jsonrpc": "2.0"} if self.option.version == "2.0" else {}
        made = [
            {"id": place, "method": method, "params": params, **version}
            for place, (method, params) in enumerate(calls, start=1)
        ]
        return canonical_json(made if together else made[0]), {}

    def read_answer(self, response: Response, expected: Expected) -> Answer:
        document = document_of(response, self.label, self.request_id(response))
        if expected.together and isinstance(document, list):
            return Answer(replies=self._batch(document, expected.calls))
        if not isinstance(document, dict):
            raise unreadable(self.label, response.status, "no answer to a call", self.request_id(response))
        reply = self._reply_of(document)
        if reply is None:
            raise unreadable(self.label, response.status, "neither result nor error", self.request_id(response))
        if reply.failure is not None and (expected.together or document.get("id") is None):
            # The id of a call that could not be read is null (JSON-RPC 2.0, section 5).
            return Answer(whole=reply.failure)
        if expected.together or as_text(document.get("id")) != "1":
            raise unreadable(self.label, response.status, "the answer to another call", self.request_id(response))
        return Answer(replies=(reply,))

    def _batch(self, answers: list[Any], calls: int) -> tuple[Reply | None, ...]:
        found: dict[str, list[Reply]] = {}
        for answer in answers:
            reply = self._reply_of(answer) if isinstance(answer, dict) else None
            if reply is not None:
                found.setdefault(as_text(answer.get("id")), []).append(reply)
        # Of two answers to one call, none is to be believed.
        each = [found.get(str(place), []) for place in range(1, calls + 1)]
        return tuple(replies[0] if len(replies) == 1 else None for replies in each)

    def _reply_of(self, answer: dict[str, Any]) -> Reply | None:
        if answer.get("error") is not None:
            return Reply(failure=self.failure(answer["error"]))
        return Reply(answer["result"]) if "result" in answer else None
