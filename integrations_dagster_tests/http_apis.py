"""Two small REST APIs that exist for these tests alone, over real HTTP: those that docs/destinations/http.md describes.

Both keep records in memory, tell what they were asked, and fail on demand.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

Fault = Callable[[Request], Response | None]


class Api:
    """What both have in common.

    Attributes:
        url: Where it is served.
        asked: (method, path and query) of every request.
        faults: Asked in order before a request is served; one that gives an answer is used up.
        after: The same, after the request has taken effect: its answer is given in place of the true one.
        delay: Seconds that the next POST waits before it takes effect; then 0.
        delayed: POSTs that have waited so, or do.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.faults: list[Fault] = []
        self.after: list[Fault] = []
        self.delay = 0.0
        self.delayed = 0
        self.lock = threading.Lock()

    def allowed(self, request: Request) -> bool:
        raise NotImplementedError

    async def guarded(self, request: Request, serve: Callable[[Request, Any], Response]) -> Response:
        body = await request.body()
        if request.method == "POST" and self.delay:
            delay, self.delay = self.delay, 0.0
            self.delayed += 1
            await asyncio.sleep(delay)
        with self.lock:
            query = f"?{request.url.query}" if request.url.query else ""
            self.asked.append((request.method, request.url.path + query))
            self.bodies.append(body)
            if not self.allowed(request):
                return JSONResponse({"error": {"code": "NO_ENTRY", "text": "Who are you?"}}, 401)
            if (answer := _first(self.faults, request)) is not None:
                return answer
            served = serve(request, json.loads(body) if body else None)
            return _first(self.after, request) or served


def _first(faults: list[Fault], request: Request) -> Response | None:
    for fault in faults:
        answer = fault(request)
        if answer is not None:
            faults.remove(fault)
            return answer
    return None


def on(method: str, path: str, *answers: Response) -> list[Fault]:
    """Faults that give these answers to requests whose path begins so, one each."""

    def fault(answer: Response) -> Fault:
        return lambda r: answer if r.method == method and r.url.path.startswith(path) else None

    return [fault(answer) for answer in answers]


class Stockroom(Api):
    """Articles with a sku, in batches; refused rows inside a 200; shelves behind a cursor; a key in a header."""

    KEY = "stockroom-key-5e1b"

    def __init__(self, shelves: int = 7, page: int = 3) -> None:
        super().__init__()
        self.articles: dict[str, dict[str, Any]] = {}
        self.shelves = [{"id": f"s{place}", "label": f"Shelf {place}"} for place in range(shelves)]
        self.page = page
        self._ids = itertools.count(1)

    def allowed(self, request: Request) -> bool:
        return request.headers.get("x-stockroom-key") == self.KEY

    def by_sku(self) -> dict[str, dict[str, Any]]:
        return {article["sku"]: article for article in self.articles.values()}

    def upsert(self, _request: Request, body: Any) -> Response:
        return JSONResponse({"outcomes": [self._upsert(article) for article in reversed(body["articles"])]})

    def _upsert(self, article: dict[str, Any]) -> dict[str, Any]:
        if str(article.get("name", "")).startswith("bad"):
            error = {"code": "BAD_NAME", "text": f"{article['name']!r} is no name."}
            return {"sku": article["sku"], "ok": False, "error": error}
        known = next((id_ for id_, kept in self.articles.items() if kept["sku"] == article["sku"]), None)
        id_ = known or f"a{next(self._ids)}"
        self.articles[id_] = {**self.articles.get(id_, {}), **article}
        return {"sku": article["sku"], "ok": True, "article_id": id_, "created": known is None}

    def update(self, request: Request, body: Any) -> Response:
        id_ = request.path_params["id"]
        if id_ not in self.articles:
            return JSONResponse({"error": {"code": "UNKNOWN_ARTICLE", "text": "There is no such article."}}, 404)
        self.articles[id_] |= body
        return JSONResponse({"article_id": id_})

    def delete(self, _request: Request, body: Any) -> Response:
        absent = [id_ for id_ in body["ids"] if self.articles.pop(id_, None) is None]
        refused = [{"id": id_, "code": "UNKNOWN_ARTICLE", "text": "There is no such article."} for id_ in absent]
        return JSONResponse({"refused": refused})

    def list_shelves(self, request: Request, _body: Any) -> Response:
        start = int(request.query_params.get("after", "0"))
        end = start + self.page
        paging = {"next": str(end) if end < len(self.shelves) else None}
        return JSONResponse({"data": self.shelves[start:end], "paging": paging})

    def app(self) -> Starlette:
        return _app(
            self,
            ("POST", "/v2/articles/batch", self.upsert),
            ("PATCH", "/v2/articles/{id}", self.update),
            ("POST", "/v2/articles/batch-delete", self.delete),
            ("GET", "/v2/shelves", self.list_shelves),
        )


class Imports(Api):
    """Customers that are imported by jobs: submitted, done some time later, their results in pages by Link header."""

    USER, PASSWORD = "loader", "imports-password-77aa"

    def __init__(self, seconds: float = 0.05, page: int = 40) -> None:
        super().__init__()
        self.customers: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.seconds = seconds
        self.page = page
        self.broken = False
        self._ids = itertools.count(1)

    def allowed(self, request: Request) -> bool:
        expected = base64.b64encode(f"{self.USER}:{self.PASSWORD}".encode()).decode()
        return request.headers.get("authorization") == f"Basic {expected}"

    def submit(self, _request: Request, body: Any) -> Response:
        id_ = f"job/{next(self._ids)}"
        rows = [] if self.broken else [self._take(record) for record in body["records"]]
        state = "broken" if self.broken else "finished"
        self.jobs[id_] = {"rows": rows, "state": state, "until": time.monotonic() + self.seconds}
        return JSONResponse({"import": {"id": id_}}, 202)

    def _take(self, record: dict[str, Any]) -> dict[str, Any]:
        ref = record["ref"]
        if record.get("gone"):
            self.customers.pop(ref, None)
            return {"ref": ref, "outcome": "removed"}
        if not record["data"].get("email"):
            return {"ref": ref, "outcome": "refused", "code": "NO_EMAIL", "why": f"Customer {ref} has no email."}
        outcome = "changed" if ref in self.customers else "added"
        self.customers[ref] = record["data"]
        return {"ref": ref, "outcome": outcome}

    def poll(self, request: Request, _body: Any) -> Response:
        job = self.jobs.get(request.path_params["job"])
        if job is None:
            return JSONResponse({"message": "No such import."}, 404)
        state = "running" if time.monotonic() < job["until"] else job["state"]
        return JSONResponse({"import": {"state": state}, "message": "It broke." if state == "broken" else ""})

    def results(self, request: Request, _body: Any) -> Response:
        job = self.jobs[request.path_params["job"]]
        start = int(request.query_params.get("from", "0"))
        end = start + self.page
        path = request.url.path.replace("job/", "job%2F")
        headers = {"Link": f'<{path}?from={end}>; rel="next"'} if end < len(job["rows"]) else {}
        return JSONResponse({"rows": job["rows"][start:end]}, headers=headers)

    def app(self) -> Starlette:
        return _app(
            self,
            ("POST", "/imports", self.submit),
            ("GET", "/imports/{job:path}/rows", self.results),
            ("GET", "/imports/{job:path}", self.poll),
        )


class Contacts(Api):
    """Contacts without an upsert: they are searched by email, made and changed one by one. Without credentials.

    Attributes:
        slow: Seconds that a creation takes before it has its effect; the answer to it is lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.contacts: dict[str, dict[str, Any]] = {}
        self.slow = 0.0
        self._ids = itertools.count(1)

    def allowed(self, request: Request) -> bool:
        return True

    def find(self, request: Request, _body: Any) -> Response:
        wanted = request.query_params["email"]
        found = [{"id": id_, **kept} for id_, kept in self.contacts.items() if kept["email"] == wanted]
        return JSONResponse({"data": found})

    def create(self, _request: Request, body: Any) -> Response:
        id_ = str(next(self._ids))
        if not self.slow:
            self.contacts[id_] = body
            return JSONResponse({"id": id_}, 201)

        def later() -> None:
            with self.lock:
                self.contacts[id_] = body

        threading.Timer(self.slow, later).start()
        self.slow = 0.0
        return PlainTextResponse("gateway timeout", 504)

    def change(self, request: Request, body: Any) -> Response:
        id_ = request.path_params["id"]
        if id_ not in self.contacts:
            return JSONResponse({}, 404)
        self.contacts[id_] |= body
        return JSONResponse({"id": id_})

    def remove(self, request: Request, _body: Any) -> Response:
        return Response(status_code=204 if self.contacts.pop(request.path_params["id"], None) else 404)

    def app(self) -> Starlette:
        return _app(
            self,
            ("GET", "/contacts", self.find),
            ("POST", "/contacts", self.create),
            ("PATCH", "/contacts/{id}", self.change),
            ("DELETE", "/contacts/{id}", self.remove),
        )


def _app(api: Api, *routes: tuple[str, str, Callable[[Request, Any], Response]]) -> Starlette:
    def endpoint(serve: Callable[[Request, Any], Response]) -> Any:
        async def answer(request: Request) -> Response:
            return await api.guarded(request, serve)

        return answer

    return Starlette(routes=[Route(path, endpoint(serve), methods=[method]) for method, path, serve in routes])


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an app on loopback; gives its URL."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
