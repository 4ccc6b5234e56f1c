"""Who may call the sandbox beside the holder of its fixed token: an OAuth 2 server, a login, a password and an API key.

Tokens that are issued here are taken on every path that needs credentials. They survive a restart; how often an access
token was used does not.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from integrations_dagster.sandbox.answers import Answer, json_answer
from integrations_dagster.sandbox.api import Api, Call
from integrations_dagster.sandbox.assertions import import_key, issuer_of, verified
from integrations_dagster.sandbox.endpoint import Endpoint

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
COOKIE = "session"
"""Name of the cookie that a login sets."""
_CODE_SECONDS = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS access_token (
    value TEXT PRIMARY KEY, family TEXT NOT NULL, expires REAL, allowed INTEGER NOT NULL, ends TEXT
);
CREATE TABLE IF NOT EXISTS refresh_token (
    value TEXT PRIMARY KEY, family TEXT NOT NULL, client TEXT NOT NULL, scope TEXT NOT NULL, live INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS authorization_code (
    value TEXT PRIMARY KEY, client TEXT NOT NULL, redirect_uri TEXT NOT NULL, challenge TEXT NOT NULL,
    scope TEXT NOT NULL, expires REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS public_key (issuer TEXT PRIMARY KEY, pem TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS assertion (jti TEXT PRIMARY KEY);
"""
_TABLES = ("access_token", "refresh_token", "authorization_code", "public_key", "assertion")


class TokenSettings(Protocol):
    """What `configure` decides of tokens that are issued from then on.

    Attributes:
        token_requests: Requests after which an access token has expired; 0: any number.
        token_seconds: Seconds after which it has; told as `expires_in`. 0: never, and nothing is told.
        refresh_token_overlap: Whether a refresh token that was replaced stays good until the access token that came
            with the new one is first used.
    """

    token_requests: int
    token_seconds: float
    refresh_token_overlap: bool


class _OAuthError(Exception):
    """A refusal, as RFC 6749 (5.2) words it."""

    def __init__(self, code: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.status = status


@dataclass(slots=True)
class _Access:
    """An access token: when it ends, how often it may be used (0: any number) and was, and what its first use ends."""

    expires: float | None
    allowed: int
    ends: str | None
    used: int = 0
    missed: bool = False


class Identity:
    """Issues tokens and knows them.

    Args:
        db: The sandbox's state; the tables are made here.
        endpoint: Returns who the sandbox is; its clients, users and keys follow from that.
        settings: What `configure` changes.
    """

    def __init__(self, db: sqlite3.Connection, endpoint: Callable[[], Endpoint], settings: TokenSettings) -> None:
        self._db = db
        self._endpoint = endpoint
        self._settings = settings
        self._asked: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._expired = 0
        self._access: dict[str, _Access] = {}
        db.executescript(_SCHEMA)
        self._load()

    def _load(self) -> None:
        self._access = {
            value: _Access(expires, allowed, ends)
            for value, expires, allowed, ends in self._db.execute(
                "SELECT value, expires, allowed, ends FROM access_token"
            )
        }

    def reset(self) -> None:
        """Forget tokens, codes, keys and counts."""
        for table in _TABLES:
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 a constant
        self._asked.clear()
        self._refused.clear()
        self._expired = 0
        self._load()

    def stats(self) -> dict[str, Any]:
        """Counts since the start or the last reset: token requests that were granted, by grant; refused ones, by error;
        access tokens that were used after they had expired."""
        return {"granted": dict(self._asked), "refused": dict(self._refused), "expired": self._expired}

    def register_key(self, issuer: str, pem: str) -> None:
        """Take assertions of an issuer that are signed with the private key of this public one.

        Raises:
            ValueError: It is no public key in PEM form.
        """
        import_key(pem)
        self._db.execute("INSERT OR REPLACE INTO public_key VALUES (?, ?)", (issuer, pem))

    def expire(self) -> int:
        """Let every access token expire now; returns how many."""
        count = 0
        for access in self._access.values():
            used_up = access.allowed and access.used >= access.allowed
            count += not used_up and (access.expires is None or access.expires > time.time())
            access.expires = 0.0
        self._db.execute("UPDATE access_token SET expires = 0")
        return count

    # Requests

    def authorized(self, headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
        """Whether a request carries good credentials; using an access token counts.

        Args:
            headers: Request headers, names in lower case.
            query: Query parameters.
        """
        endpoint = self._endpoint()
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind == "Bearer":
            return _same(value, endpoint.token) or self._use(value)
        if kind == "Basic":
            return _same(_decoded(value), f"{endpoint.username}:{endpoint.password}")
        for cookie in headers.get("cookie", "").split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == COOKIE:
                return self._use(value)
        return _same(headers.get("x-api-key") or query.get("api_key", ""), endpoint.api_key)

    def _use(self, value: str) -> bool:
        access = self._access.get(value)
        if access is None:
            return False
        over = access.allowed and access.used >= access.allowed
        if over or (access.expires is not None and time.time() >= access.expires):
            self._expired += not access.missed
            access.missed = True
            return False
        access.used += 1
        if access.ends is not None:
            self._db.execute("UPDATE refresh_token SET live = 0 WHERE value = ?", (access.ends,))
            self._db.execute("UPDATE access_token SET ends = NULL WHERE value = ?", (value,))
            access.ends = None
        return True

    # Tokens

    def token(self, headers: Mapping[str, str], body: bytes, also: Mapping[str, str] | None = None) -> Answer:
        """Answer POST /oauth/token; `also`: further members of a good answer."""
        form = dict(parse_qsl(body.decode("utf-8", "replace")))
        grant = form.get("grant_type", "")
        try:
            answer = json_answer(200, {**self._granted(grant, form, headers), **(also or {})})
            self._asked[grant] += 1
        except _OAuthError as error:
            self._refused[error.code] += 1
            answer = json_answer(error.status, {"error": error.code, "error_description": error.description})
            if error.status == 401:
                answer.headers["WWW-Authenticate"] = 'Basic realm="sandbox"'
        answer.headers |= {"Cache-Control": "no-store"}
        return answer

    def _granted(self, grant: str, form: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, Any]:
        if grant == JWT_BEARER:
            self._check_assertion(form.get("assertion", ""))
            return self._issue(secrets.token_hex(8))
        client = self._client(form, headers)
        if grant == "authorization_code":
            return self._redeemed(client, form)
        if grant == "refresh_token":
            return self._rotated(client, form)
        if grant == "client_credentials":
            if client != self._endpoint().client_id:
                raise _OAuthError("unauthorized_client", "A public client has no credentials.")
            return self._issue(secrets.token_hex(8))
        raise _OAuthError("unsupported_grant_type", "No such grant.")

    def _client(self, form: Mapping[str, str], headers: Mapping[str, str]) -> str:
        client, secret = form.get("client_id", ""), form.get("client_secret", "")
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind == "Basic":
            client, _, secret = (unquote_plus(part) for part in _decoded(value).partition(":"))
        endpoint = self._endpoint()
        if client == endpoint.public_client_id and not secret:
            return client
        if client != endpoint.client_id or not _same(secret, endpoint.client_secret):
            raise _OAuthError("invalid_client", "Unknown client, or a wrong secret.", 401)
        return client

    def _redeemed(self, client: str, form: Mapping[str, str]) -> dict[str, Any]:
        row = self._db.execute(
            "DELETE FROM authorization_code WHERE value = ? RETURNING client, redirect_uri, challenge, scope, expires",
            (form.get("code", ""),),
        ).fetchone()
        if row is None or row[0] != client or row[1] != form.get("redirect_uri") or row[4] < time.time():
            raise _OAuthError("invalid_grant", "The code is unknown, used, expired, or another client's.")
        if not _same(_challenge(form.get("code_verifier", "")), row[2]):
            raise _OAuthError("invalid_grant", "The code verifier does not fit.")
        return self._issue(secrets.token_hex(8), client=client, scope=row[3])

    def _rotated(self, client: str, form: Mapping[str, str]) -> dict[str, Any]:
        old = form.get("refresh_token", "")
        row = self._db.execute(
            "SELECT family, client, scope, live FROM refresh_token WHERE value = ?", (old,)
        ).fetchone()
        if row is None or row[1] != client:
            raise _OAuthError("invalid_grant", "The refresh token is unknown.")
        family, _, scope, live = row
        if not live:
            # One that was replaced and is used again may have been stolen (RFC 9700, 4.14.2): all of them end.
            self._end(family)
            raise _OAuthError("invalid_grant", "The refresh token was replaced, and used again.")
        # What an earlier use of the same token brought was lost on its way, so it ends.
        self._end(family, but=old)
        if not self._settings.refresh_token_overlap:
            self._db.execute("UPDATE refresh_token SET live = 0 WHERE value = ?", (old,))
        return self._issue(
            family, client=client, scope=scope, ends=old if self._settings.refresh_token_overlap else None
        )

    def _end(self, family: str, but: str = "") -> None:
        self._db.execute("UPDATE refresh_token SET live = 0 WHERE family = ? AND value != ?", (family, but))
        # Access tokens that were not used yet, unless everything of the family ends.
        for (value,) in self._db.execute("SELECT value FROM access_token WHERE family = ?", (family,)).fetchall():
            access = self._access.get(value)
            if access is not None and (not but or access.ends is not None):
                del self._access[value]
                self._db.execute("DELETE FROM access_token WHERE value = ?", (value,))

    def _issue(self, family: str, *, client: str = "", scope: str = "", ends: str | None = None) -> dict[str, Any]:
        """An access token, and with a client a refresh token."""
        seconds, allowed = self._settings.token_seconds, self._settings.token_requests
        access = f"sat-{secrets.token_urlsafe(24)}"
        self._access[access] = _Access(time.time() + seconds if seconds else None, allowed, ends)
        self._db.execute(
            "INSERT INTO access_token VALUES (?, ?, ?, ?, ?)",
            (access, family, self._access[access].expires, allowed, ends),
        )
        answer: dict[str, Any] = {"access_token": access, "token_type": "Bearer"}
        if seconds:
            answer["expires_in"] = seconds if seconds % 1 else int(seconds)
        if client:
            answer["refresh_token"] = f"srt-{secrets.token_urlsafe(24)}"
            self._db.execute(
                "INSERT INTO refresh_token VALUES (?, ?, ?, ?, 1)", (answer["refresh_token"], family, client, scope)
            )
        return answer | ({"scope": scope} if scope else {})

    def _check_assertion(self, assertion: str) -> None:
        row = self._db.execute("SELECT pem FROM public_key WHERE issuer = ?", (issuer_of(assertion),)).fetchone()
        if row is None:
            raise _OAuthError("invalid_grant", "No key is registered for the issuer.")
        url = self._endpoint().url
        try:
            jti = verified(assertion, row[0], {url, f"{url}/oauth/token", f"{url}/services/oauth2/token"})
        except ValueError as error:
            raise _OAuthError("invalid_grant", str(error)) from None
        if not self._db.execute("INSERT OR IGNORE INTO assertion VALUES (?)", (jti,)).rowcount:
            raise _OAuthError("invalid_grant", "The assertion was used before.")

    def authorize(self, query: Mapping[str, str]) -> Answer:
        """Answer GET /oauth/authorize: the person says yes at once."""
        endpoint = self._endpoint()
        client, redirect = query.get("client_id", ""), query.get("redirect_uri", "")
        if client not in (endpoint.client_id, endpoint.public_client_id) or not _is_loopback(redirect):
            return json_answer(
                400, {"error": "invalid_request", "error_description": "Unknown client or redirect_uri."}
            )
        back = {"state": query["state"]} if "state" in query else {}
        if query.get("response_type") != "code" or query.get("code_challenge_method") != "S256":
            back["error"] = "invalid_request"
        else:
            back["code"] = f"code-{secrets.token_urlsafe(24)}"
            self._db.execute(
                "INSERT INTO authorization_code VALUES (?, ?, ?, ?, ?, ?)",
                (
                    back["code"],
                    client,
                    redirect,
                    query.get("code_challenge", ""),
                    query.get("scope", ""),
                    time.time() + _CODE_SECONDS,
                ),
            )
        return Answer(302, b"", {"Location": f"{redirect}?{urlencode(back)}", "Cache-Control": "no-store"})

    def login(self, call: Call) -> Answer:
        """Answer POST /session/login, in JSON or as a form: the token is in the body and in a cookie."""
        given = (
            call.document if isinstance(call.document, dict) else dict(parse_qsl(call.body.decode("utf-8", "replace")))
        )
        endpoint = self._endpoint()
        user, password = str(given.get("username", "")), str(given.get("password", ""))
        if not (_same(user, endpoint.username) and _same(password, endpoint.password)):
            self._refused["login"] += 1
            return json_answer(401, {"error": "login_failed", "message": "Wrong user or password."})
        self._asked["session"] += 1
        token = self._issue(secrets.token_hex(8))["access_token"]
        answer = json_answer(200, {"data": {"token": token}})
        answer.headers["Set-Cookie"] = f"{COOKIE}={token}; Path=/; HttpOnly"
        return answer


class OAuth(Api):
    """POST /oauth/token, GET /oauth/authorize."""

    prefix: ClassVar[str] = "/oauth/"
    guarded: ClassVar[bool] = False
    counted: ClassVar[bool] = False

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def handle(self, call: Call) -> Answer:
        if (call.method, call.path) == ("POST", "/oauth/token"):
            return self._identity.token(call.headers, call.body)
        if (call.method, call.path) == ("GET", "/oauth/authorize"):
            return self._identity.authorize(call.query)
        return json_answer(404, {"error": "not_found"})


class Login(Api):
    """POST /session/login."""

    prefix: ClassVar[str] = "/session/"
    guarded: ClassVar[bool] = False
    counted: ClassVar[bool] = False

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def handle(self, call: Call) -> Answer:
        if (call.method, call.path) == ("POST", "/session/login"):
            return self._identity.login(call)
        return json_answer(404, {"error": "not_found"})


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())


def _decoded(basic: str) -> str:
    try:
        return base64.b64decode(basic, validate=True).decode()
    except ValueError:
        return ""


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def _is_loopback(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1") and not parts.query
