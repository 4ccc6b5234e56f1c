"""The way of a request through the sandbox: log, faults, token, quota, latency, then the stand-in that answers it."""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import struct
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from integrations_dagster.sandbox import slack, webhook
from integrations_dagster.sandbox.answers import Answer, HubSpotError, json_answer, timestamp
from integrations_dagster.sandbox.control import Control, Settings
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sandbox.faults import Faults, Taken, applied
from integrations_dagster.sandbox.hubspot import HubSpot, portal_id
from integrations_dagster.sandbox.store import Store

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_OVERSIZED = 64 * 1024 * 1024
_PIECE = 64 * 1024

Transports = dict[tuple[str, int], asyncio.Transport]
"""The open connections by the client's address."""


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
        self._hubspot = HubSpot(store, portal_id(endpoint.id), lambda: self.endpoint.url)
        self._control = Control(store, self.faults, self._settings, self._hubspot, lambda: self.endpoint)
        self._authorization = f"Bearer {endpoint.token}"
        self.app = Starlette(
            routes=[
                Route("/_sandbox/{path:path}", self._handle_control, methods=_METHODS),
                Route("/{path:path}", self._handle, methods=_METHODS),
            ]
        )

    async def _handle_control(self, request: Request) -> Response:
        body = await request.body()
        if not self._authorized(request):
            return _response(_unauthorized().answer())
        return _response(self._control.handle(request.method, request.path_params["path"], request.query_params, body))

    async def _handle(self, request: Request) -> Response:
        started = time.time()
        body = await request.body()
        method, path = request.method, request.url.path
        document, rows, ids = _read(body, request.headers)
        seq = self._store.begin_request(method, path, rows, ids, started, body if self._settings.bodies else None)
        taken = self.faults.take(method, path, body)
        status: int | None = None
        failed_rows = 0
        try:
            response = await self._respond(request, body, document, taken)
            if isinstance(response, Answer):
                failed_rows = response.failed_rows
                response = _response(response)
            status = None if isinstance(response, _Cut) and response.silent else response.status_code
            return response
        finally:
            self._store.end_request(seq, status, failed_rows, time.time(), taken.names)

    async def _respond(self, request: Request, body: bytes, document: Any, taken: Taken) -> Answer | Response:
        fault = taken.fault
        try:
            if fault is not None and fault["kind"] in ("status", "html", "unauthorized"):
                await asyncio.sleep(self._settings.latency + taken.latency)
                return _refused(fault)
            if not request.url.path.startswith(("/webhook/", "/slack/")):
                if not self._authorized(request):
                    raise _unauthorized()
                self._settings.quota.take()
            # Half before and half after the effects, so that a killed client may leave either behind.
            pause = (self._settings.latency + taken.latency) / 2
            if pause:
                await asyncio.sleep(pause)
            if fault is not None:
                return await self._with_fault(request, body, document, taken, fault, pause)
            answer = self._answer(request, body, document, taken)
            if pause:
                await asyncio.sleep(pause)
        except HubSpotError as error:
            answer = error.answer(rows=_count(document))
        return answer

    async def _with_fault(
        self, request: Request, body: bytes, document: Any, taken: Taken, fault: Mapping[str, Any], pause: float
    ) -> Answer | Response:
        kind = fault["kind"]
        if kind == "hold":
            return await self._held(request, body, document, taken, fault)
        answer = self._answer(request, body, document, taken) if applied(fault) else Answer(200)
        await asyncio.sleep(pause)
        if kind == "reset":
            return _Cut(self._transport(request), None)
        if kind == "truncated":
            whole = answer.body or b'{"status":"COMPLETE","results":[]}'
            head = (
                f"HTTP/1.1 {answer.status} OK\r\ncontent-type: application/json\r\ncontent-length: {len(whole)}\r\n\r\n"
            ).encode()
            return _Cut(self._transport(request), head + whole[: len(whole) // 2], answer.status)
        if kind == "malformed":
            return _response(Answer(200, b'{"status":"COMPLETE","results":[{"id":'))
        if kind == "oversized":
            return StreamingResponse(_padding(int(fault.get("bytes", _OVERSIZED))), media_type="application/json")
        now = timestamp()
        return json_answer(200, {"status": "COMPLETE", "results": [], "startedAt": now, "completedAt": now})

    async def _held(
        self, request: Request, body: bytes, document: Any, taken: Taken, fault: Mapping[str, Any]
    ) -> Answer | Response:
        seconds = None if fault.get("seconds") is None else float(fault["seconds"])
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            if applied(fault):
                answer: Answer | None = self._answer(request, body, document, taken)
                await self.faults.hold(seconds, gone)
            else:
                # A late request takes effect although its sender has given up, as behind a slow proxy.
                stayed = await self.faults.hold(seconds, None if fault.get("late") else gone)
                answer = self._answer(request, body, document, taken) if stayed else None
        finally:
            gone.cancel()
        if answer is None or await request.is_disconnected():
            return _Cut(self._transport(request), None)
        return answer

    def _answer(self, request: Request, body: bytes, document: Any, taken: Taken) -> Answer:
        path = request.url.path
        try:
            if path.startswith("/webhook/"):
                if request.method != "POST":
                    return json_answer(405, {"error": "Deliveries are POSTed."})
                name = path.removeprefix("/webhook/")
                return webhook.receive(self._store, self.endpoint.secret, name, request.headers, body, document)
            if path.startswith("/slack/api/"):
                return slack.call(self._store, path.removeprefix("/slack/api/"), request.headers, body)
            if body and document is None:
                raise HubSpotError(400, "VALIDATION_ERROR", "Invalid input JSON on line 1, column 1")
            answer = self._hubspot.handle(request.method, path, request.query_params, document, taken.rejections)
            answer.headers.update(self._settings.quota.headers())
            answer.headers["x-hubspot-correlation-id"] = str(uuid.uuid4())
            return answer
        except HubSpotError as error:
            return error.answer(rows=_count(document))
        except UnicodeEncodeError:
            # JSON can name half a surrogate pair, which is no text.
            refusal = HubSpotError(400, "VALIDATION_ERROR", "Invalid input JSON: an unpaired surrogate.")
            return refusal.answer(rows=_count(document))

    def _authorized(self, request: Request) -> bool:
        given = request.headers.get("authorization", "")
        return hmac.compare_digest(given.encode(), self._authorization.encode())

    def _transport(self, request: Request) -> asyncio.Transport | None:
        client = request.scope.get("client")
        return self._transports.get((client[0], client[1])) if client else None


class _Cut(Response):
    """Ends the connection: abruptly, or after bytes that HTTP would not allow.

    Args:
        transport: The connection, None where it is gone.
        data: What to send first; None: nothing, and a reset.
        status: The status that `data` begins with.
    """

    def __init__(self, transport: asyncio.Transport | None, data: bytes | None, status: int = 200) -> None:
        super().__init__(status_code=status)
        self.silent = data is None
        self._transport = transport
        self._data = data

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 starlette's signature
        if self._transport is None:
            return
        if self._data is None:
            raw = self._transport.get_extra_info("socket")
            # Closing with a linger time of zero sends RST instead of FIN.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.write(self._data)
            self._transport.close()
        # The server counts the request as unanswered unless the disconnection is seen first.
        while (await receive())["type"] != "http.disconnect":
            pass


def recording_protocol(base: Any, transports: Transports) -> Any:
    """A uvicorn HTTP protocol class that keeps the open connections in `transports`."""

    class Recording(base):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            self._address = tuple(transport.get_extra_info("peername")[:2])
            transports[self._address] = transport
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            transports.pop(self._address, None)
            super().connection_lost(exc)

    return Recording


def _read(body: bytes, headers: Mapping[str, str]) -> tuple[Any, int, list[str]]:
    """The body decoded (None: no JSON), its rows, and the ids that its sender gave it: trace ids or a delivery id."""
    delivery = headers.get("webhook-id")
    ids = [delivery] if delivery else []
    try:
        document = json.loads(body) if body else None
    except ValueError:
        return None, 0, ids
    if not isinstance(document, dict):
        return document, 0, ids
    inputs = document.get("inputs")
    if isinstance(inputs, list):
        ids += [
            t for entry in inputs if isinstance(entry, dict) and isinstance(t := entry.get("objectWriteTraceId"), str)
        ]
    return document, _count(document), ids


def _count(document: Any) -> int:
    if not isinstance(document, dict):
        return 0
    rows = document.get("inputs", document.get("rows"))
    return len(rows) if isinstance(rows, list) else 1 if "properties" in document else 0


def _refused(fault: Mapping[str, Any]) -> Answer:
    if fault["kind"] == "unauthorized":
        return _unauthorized().answer()
    if fault["kind"] == "html":
        page = b"<!DOCTYPE html><html><head><title>503</title></head><body><h1>Service Unavailable</h1></body></html>"
        return Answer(int(fault.get("status", 503)), page, media_type="text/html; charset=utf-8")
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
    if status == 429:
        policy = {"errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"}
        message = "You have reached your ten_secondly_rolling limit."
        return HubSpotError(429, "RATE_LIMITS", message, extra=policy, headers=headers).answer()
    category = "INTERNAL_ERROR" if status >= 500 else "VALIDATION_ERROR"
    return HubSpotError(status, category, "internal error" if status >= 500 else "refused", headers=headers).answer()


def _unauthorized() -> HubSpotError:
    return HubSpotError(
        401,
        "INVALID_AUTHENTICATION",
        "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more "
        "details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
    )


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


async def _padding(total: int) -> AsyncIterator[bytes]:
    head, tail = b'{"status":"COMPLETE","results":[],"padding":"', b'"}'
    yield head
    left = total - len(head) - len(tail)
    while left > 0:
        yield b"x" * min(left, _PIECE)
        left -= _PIECE
    yield tail
