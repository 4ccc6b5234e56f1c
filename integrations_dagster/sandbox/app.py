"""The way of a request through the sandbox: log, faults, credentials, quota, latency, then the stand-in for it."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from integrations_dagster.sandbox.answers import Answer
from integrations_dagster.sandbox.api import Api, Call, error_answer
from integrations_dagster.sandbox.control import Control
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sandbox.faults import Faults, Taken, applied
from integrations_dagster.sandbox.hubspot import HubSpot, portal_id
from integrations_dagster.sandbox.identity import Identity, Login, OAuth
from integrations_dagster.sandbox.inserts import Inserts
from integrations_dagster.sandbox.jobs import Jobs
from integrations_dagster.sandbox.salesforce import Salesforce, SalesforceOAuth
from integrations_dagster.sandbox.salesforce_state import SalesforceState
from integrations_dagster.sandbox.settings import Settings
from integrations_dagster.sandbox.slack import Slack
from integrations_dagster.sandbox.store import Store
from integrations_dagster.sandbox.webhook import Webhook
from integrations_dagster.sandbox.wire import Cut, SlowHead, Transports, endless, head, padding

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_OVERSIZED = 64 * 1024 * 1024
_UNPACKED = 64 * 1024 * 1024
"""Bytes that a compressed body may have once it is decompressed."""
_AT_THE_DOOR = ("status", "html", "unauthorized", "redirect")
"""Faults that refuse a request before anything looks at it."""


@dataclass(frozen=True, slots=True)
class _Visit:
    """A request on its way: what the client sent, who answers it, and what goes wrong."""

    request: Request
    api: Api
    call: Call
    taken: Taken


class Sandbox:
    """The server's application.

    Args:
        store: The state.
        endpoint: Who the sandbox is; `url` is read when it is needed.
        transports: The open connections, for faults below HTTP.
    """

    def __init__(self, store: Store, endpoint: Endpoint, transports: Transports) -> None:
        self.endpoint = endpoint
        self.faults = Faults()
        self._store = store
        self._transports = transports
        self._settings = Settings()
        self._identity = Identity(store.connection, lambda: self.endpoint, self._settings)
        jobs = Jobs(store, self._settings)
        salesforce = SalesforceState(store.connection)
        hubspot = HubSpot(store, portal_id(endpoint.id), lambda: self.endpoint.url)
        # The first whose prefix begins the path answers; HubSpot's is "/", so it comes last.
        self._apis: tuple[Api, ...] = (
            Webhook(store, endpoint.secret),
            Slack(store),
            OAuth(self._identity),
            Login(self._identity),
            Inserts(store, self._settings),
            jobs,
            SalesforceOAuth(self._identity, lambda: self.endpoint),
            Salesforce(store, salesforce, lambda: self.endpoint),
            hubspot,
        )
        self._control = Control(
            store, self.faults, self._settings, hubspot, salesforce, self._identity, jobs, lambda: self.endpoint
        )
        self._authorization = f"Bearer {endpoint.token}"
        self.app = Starlette(
            routes=[
                Route("/_sandbox/{path:path}", self._handle_control, methods=_METHODS),
                Route("/{path:path}", self._handle, methods=_METHODS),
            ]
        )

    async def _handle_control(self, request: Request) -> Response:
        body = await request.body()
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), self._authorization.encode()):
            return _response(error_answer(401, "UNAUTHORIZED", "The control API takes the sandbox's own token only."))
        return _response(self._control.handle(request.method, request.path_params["path"], request.query_params, body))

    async def _handle(self, request: Request) -> Response:
        started = time.time()
        body = await request.body()
        method, path = request.method, request.url.path
        api = next(api for api in self._apis if path.startswith(api.prefix))
        unpacked = _unpacked(body) if api.gzip and request.headers.get("content-encoding") == "gzip" else body
        body = body if unpacked is None else unpacked
        document, rows, ids = _read(body, request.headers)
        seq = self._store.begin_request(method, path, rows, ids, started, body if self._settings.bodies else None)
        taken = self.faults.take(method, path, body)
        call = Call(
            seq,
            method,
            path,
            request.query_params,
            request.headers,
            body,
            document,
            rows,
            taken.rejections,
            taken.fail_job,
        )
        status: int | None = None
        failed_rows = 0
        try:
            if unpacked is None:
                response: Answer | Response = api.refusal(400, {})
            else:
                response = await self._respond(_Visit(request, api, call, taken))
            if isinstance(response, Answer):
                failed_rows = response.failed_rows
                response = _response(response)
            status = None if isinstance(response, Cut) and response.silent else response.status_code
            response.headers.setdefault(*api.request_id(call))
            return response
        finally:
            self._store.end_request(seq, status, failed_rows, time.time(), taken.names)

    async def _respond(self, visit: _Visit) -> Answer | Response:
        api, fault = visit.api, visit.taken.fault
        if fault is not None and fault["kind"] in _AT_THE_DOOR:
            await asyncio.sleep(self._settings.latency + visit.taken.latency)
            return _refused(api, fault)
        if api.guarded and not self._authorized(visit.request):
            answer = api.unauthorized()
            answer.failed_rows = visit.call.rows
            return answer
        if not api.counted:
            return await self._served(visit)
        # `configure` may put other quotas in force meanwhile.
        quotas = self._settings.quotas
        over = quotas.enter()
        if over is not None:
            answer = api.throttled(over, api.quota_headers(quotas) | quotas.retry_headers(over))
            answer.failed_rows = visit.call.rows
            return answer
        try:
            response = await self._served(visit)
        finally:
            quotas.leave()
        response.headers.update(api.quota_headers(quotas))
        return response

    async def _served(self, visit: _Visit) -> Answer | Response:
        # Half before and half after the effects, so that a killed client may leave either behind.
        pause = (self._settings.latency + visit.taken.latency) / 2
        if pause:
            await asyncio.sleep(pause)
        if visit.taken.fault is not None:
            return await self._with_fault(visit, visit.taken.fault, pause)
        answer = visit.api.handle(visit.call)
        if pause:
            await asyncio.sleep(pause)
        return answer

    async def _with_fault(self, visit: _Visit, fault: Mapping[str, Any], pause: float) -> Answer | Response:
        kind = fault["kind"]
        if kind == "hold":
            return await self._held(visit, fault)
        nothing = visit.api.empty(visit.call)
        answer = visit.api.handle(visit.call) if applied(fault) else nothing
        await asyncio.sleep(pause)
        whole = answer.body or nothing.body or b"{}"
        status = answer.status if answer.status != 204 else 200
        transport = self._transport(visit.request)
        if kind == "reset":
            return Cut(transport, None)
        if kind == "truncated":
            return Cut(transport, head(status, len(whole)) + whole[: len(whole) // 2], status)
        if kind == "slow_head":
            return SlowHead(transport, head(status, len(whole)), whole, float(fault.get("seconds", 60.0)), status)
        if kind == "malformed":
            return Answer(status if status < 300 else 200, b'{"status":"COMPLETE","results":[{"id":')
        if kind == "oversized":
            return StreamingResponse(padding(int(fault.get("bytes", _OVERSIZED))), media_type="application/json")
        if kind == "endless":
            pieces = endless(int(fault.get("bytes", 64)), float(fault.get("seconds", 0.05)))
            return StreamingResponse(pieces, media_type="application/json")
        return nothing

    async def _held(self, visit: _Visit, fault: Mapping[str, Any]) -> Answer | Response:
        request = visit.request
        seconds = None if fault.get("seconds") is None else float(fault["seconds"])
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            if applied(fault):
                answer: Answer | None = visit.api.handle(visit.call)
                await self.faults.hold(seconds, gone)
            else:
                # A late request takes effect although its sender has given up, as behind a slow proxy.
                stayed = await self.faults.hold(seconds, None if fault.get("late") else gone)
                answer = visit.api.handle(visit.call) if stayed else None
        finally:
            gone.cancel()
        if answer is None or await request.is_disconnected():
            return Cut(self._transport(request), None)
        return answer

    def _authorized(self, request: Request) -> bool:
        return self._identity.authorized(request.headers, request.query_params)

    def _transport(self, request: Request) -> asyncio.Transport | None:
        client = request.scope.get("client")
        return self._transports.get((client[0], client[1])) if client else None


def _unpacked(body: bytes) -> bytes | None:
    """A gzip body decompressed; None where it is none, is cut off, or is too large."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(body, _UNPACKED)
    except zlib.error:
        return None
    return plain if unpacker.eof and not unpacker.unused_data else None


def _read(body: bytes, headers: Mapping[str, str]) -> tuple[Any, int, list[str]]:
    """The body decoded (None: no JSON), its rows, and the ids that its sender gave: trace ids, delivery id or key."""
    ids = [headers[name] for name in ("webhook-id", "idempotency-key") if headers.get(name)]
    try:
        document = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None, 0, ids
    if not isinstance(document, dict):
        return document, 0, ids
    inputs = document.get("inputs")
    if isinstance(inputs, list):
        ids += [
            t for entry in inputs if isinstance(entry, dict) and isinstance(t := entry.get("objectWriteTraceId"), str)
        ]
    return document, _count(document), ids


def _count(document: Mapping[str, Any]) -> int:
    rows = next((document[name] for name in ("inputs", "rows", "records") if name in document), None)
    return len(rows) if isinstance(rows, list) else 1 if "properties" in document else 0


def _refused(api: Api, fault: Mapping[str, Any]) -> Answer:
    if fault["kind"] == "unauthorized":
        return api.unauthorized()
    if fault["kind"] == "html":
        page = b"<!DOCTYPE html><html><head><title>503</title></head><body><h1>Service Unavailable</h1></body></html>"
        return Answer(int(fault.get("status", 503)), page, media_type="text/html; charset=utf-8")
    if fault["kind"] == "redirect":
        location = str(fault.get("location", "https://elsewhere.invalid/"))
        return Answer(int(fault.get("status", 307)), b"", {"location": location})
    status = int(fault.get("status", 500))
    headers = {str(name): str(value) for name, value in (fault.get("headers") or {}).items()}
    if "retry_after" in fault:
        headers["Retry-After"] = str(fault["retry_after"])
    if "retry_after_date" in fault:
        when = datetime.now(UTC) + timedelta(seconds=float(fault["retry_after_date"]))
        headers["Retry-After"] = format_datetime(when, usegmt=True)
    if "body" in fault:
        text = fault["body"] if isinstance(fault["body"], str) else json.dumps(fault["body"])
        return Answer(status, text.encode(), headers)
    return api.refusal(status, headers)


def _response(answer: Answer) -> Response:
    return Response(
        answer.body,
        answer.status,
        answer.headers,
        media_type=None if answer.status == 204 else answer.media_type,
    )


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
