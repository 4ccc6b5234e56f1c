"""The sandbox's OAuth server, login, password and API key."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from joserfc import jwt
from joserfc.jwk import RSAKey

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sandbox.process import ensure_running, stop

PATH = "/account-info/v3/details"
REDIRECT = "http://127.0.0.1:1/callback"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def ask(endpoint: Endpoint, grant: str, *, public: bool = False, **form: str) -> requests.Response:
    """A token request; id and secret travel in the body."""
    client = {"client_id": endpoint.public_client_id} if public else {}
    if not public:
        client = {"client_id": endpoint.client_id, "client_secret": endpoint.client_secret}
    return requests.post(endpoint.url + "/oauth/token", data={"grant_type": grant, **client, **form}, timeout=10)


def tokens(endpoint: Endpoint, **arguments: Any) -> tuple[str, str]:
    """Access and refresh token of a person who said yes."""
    answer = ask(endpoint, "authorization_code", code=code(endpoint), redirect_uri=REDIRECT, code_verifier=VERIFIER)
    return answer.json()["access_token"], answer.json()["refresh_token"]


def authorize(endpoint: Endpoint, **changes: str) -> requests.Response:
    query = {
        "response_type": "code",
        "client_id": endpoint.client_id,
        "redirect_uri": REDIRECT,
        "state": "s&t",
        "scope": "a b",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    } | changes
    return requests.get(endpoint.url + "/oauth/authorize", query, allow_redirects=False, timeout=10)


def code(endpoint: Endpoint, **changes: str) -> str:
    return parse_qs(urlsplit(authorize(endpoint, **changes).headers["location"]).query)["code"][0]


def status(endpoint: Endpoint, token: str = "", **arguments: Any) -> int:
    """What an API path says to a token, or to other credentials."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.get(
        endpoint.url + PATH, headers=headers | arguments.pop("headers", {}), timeout=10, **arguments
    ).status_code


def refusal(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def test_every_kind_of_credential_is_taken_and_no_other(sandbox: SandboxClient) -> None:
    e = sandbox.endpoint
    assert status(e) == 401
    assert status(e, "nonsense") == 401
    assert status(e, e.token) == 200
    assert status(e, headers={"X-API-Key": e.api_key}) == 200
    assert status(e, params={"api_key": e.api_key}) == 200
    assert status(e, headers={"X-API-Key": "x"}) == 401
    assert status(e, auth=(e.username, e.password)) == 200
    assert status(e, auth=(e.username, "x")) == 401
    assert status(e, headers={"Authorization": "Basic ###"}) == 401
    assert status(e, ask(e, "client_credentials").json()["access_token"]) == 200


def test_what_follows_from_the_endpoint_stays(sandbox: SandboxClient) -> None:
    e = sandbox.endpoint
    secrets = {e.client_secret, e.password, e.api_key, e.token, e.secret}
    assert len(secrets) == 5
    assert not any(secret in repr((e.client_id, e.public_client_id, e.username)) for secret in secrets)


def test_client_authentication(sandbox: SandboxClient) -> None:
    e = sandbox.endpoint
    url = e.url + "/oauth/token"
    data = {"grant_type": "client_credentials"}
    basic = requests.post(url, data, auth=(e.client_id, e.client_secret), timeout=10)
    assert basic.json()["expires_in"] == 1800
    assert basic.headers["cache-control"] == "no-store"
    assert refusal(requests.post(url, data, timeout=10)) == (401, "invalid_client")
    assert refusal(requests.post(url, data, auth=(e.client_id, "x"), timeout=10)) == (401, "invalid_client")
    assert refusal(ask(e, "client_credentials", public=True)) == (400, "unauthorized_client")
    assert refusal(ask(e, "password")) == (400, "unsupported_grant_type")


def test_the_authorization_code_grant(sandbox: SandboxClient) -> None:
    e = sandbox.endpoint
    back = urlsplit(authorize(e).headers["location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == REDIRECT
    assert parse_qs(back.query)["state"] == ["s&t"]
    good: dict[str, Any] = {"redirect_uri": REDIRECT, "code_verifier": VERIFIER}
    first = code(e)
    answer = ask(e, "authorization_code", code=first, **good).json()
    assert answer["scope"] == "a b"
    assert status(e, answer["access_token"]) == 200
    assert refusal(ask(e, "authorization_code", code=first, **good)) == (400, "invalid_grant")
    for wrong in ({"code_verifier": "w" * 64}, {"redirect_uri": REDIRECT + "x"}, {"code": "x"}):
        given: dict[str, Any] = {"code": code(e)} | good | wrong
        assert refusal(ask(e, "authorization_code", **given)) == (400, "invalid_grant"), wrong
    assert refusal(ask(e, "authorization_code", public=True, code=code(e), **good)) == (400, "invalid_grant")
    public = code(e, client_id=e.public_client_id)
    assert ask(e, "authorization_code", public=True, code=public, **good).status_code == 200


def test_only_loopback_gets_a_code_and_only_with_pkce(sandbox: SandboxClient) -> None:
    e = sandbox.endpoint
    assert authorize(e, redirect_uri="https://elsewhere.example/callback").status_code == 400
    assert authorize(e, client_id="x").status_code == 400
    assert "error=invalid_request" in authorize(e, code_challenge_method="plain").headers["location"]


def test_a_refresh_token_rotates_and_stays_good_until_the_new_one_is_used(sandbox: SandboxClient) -> None:
    e = sandbox.endpoint
    _, first = tokens(e)
    lost = ask(e, "refresh_token", refresh_token=first).json()
    again = ask(e, "refresh_token", refresh_token=first).json()
    assert len({first, lost["refresh_token"], again["refresh_token"]}) == 3
    assert status(e, lost["access_token"]) == 401  # it was replaced before it was used
    assert status(e, again["access_token"]) == 200
    assert refusal(ask(e, "refresh_token", refresh_token=first)) == (400, "invalid_grant")
    # A replaced token that is used again ends all that came from it.
    assert refusal(ask(e, "refresh_token", refresh_token=again["refresh_token"])) == (400, "invalid_grant")
    assert status(e, again["access_token"]) == 401


def test_without_overlap_a_refresh_token_is_good_once(sandbox: SandboxClient) -> None:
    e = sandbox.endpoint
    sandbox.configure(refresh_token_overlap=False)
    _, first = tokens(e)
    second = ask(e, "refresh_token", refresh_token=first).json()["refresh_token"]
    assert ask(e, "refresh_token", refresh_token=second).status_code == 200
    assert refusal(ask(e, "refresh_token", refresh_token=second)) == (400, "invalid_grant")
    assert sandbox.tokens()["refused"] == {"invalid_grant": 1}


def test_tokens_expire_by_requests_and_by_seconds(sandbox: SandboxClient) -> None:
    e = sandbox.endpoint
    sandbox.configure(token_requests=3, token_seconds=0)
    answer = ask(e, "client_credentials").json()
    assert "expires_in" not in answer
    assert [status(e, answer["access_token"]) for _ in range(5)] == [200, 200, 200, 401, 401]
    assert status(e, e.token) == 200
    sandbox.configure(token_requests=0, token_seconds=0.05)
    short = ask(e, "client_credentials").json()
    assert short["expires_in"] == 0.05
    deadline = time.monotonic() + 10
    while status(e, short["access_token"]) == 200:
        assert time.monotonic() < deadline
    assert sandbox.tokens() == {"granted": {"client_credentials": 2}, "refused": {}, "expired": 2}
    sandbox.configure(token_seconds=1800)
    long = ask(e, "client_credentials").json()["access_token"]
    assert sandbox.expire_tokens() == 1
    assert status(e, long) == 401


def test_a_signed_assertion_is_taken_once(sandbox: SandboxClient) -> None:
    e = sandbox.endpoint
    key, other = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
    sandbox.register_key("app", key.as_pem(private=False).decode())

    def assertion(signer: RSAKey = key, **changes: Any) -> str:
        claims = {"iss": "app", "sub": "me", "aud": e.url, "exp": time.time() + 60, "jti": uuid.uuid4().hex} | changes
        return jwt.encode({"alg": "RS256"}, claims, signer)

    good = assertion()
    answer = ask(e, JWT_BEARER, assertion=good)
    assert status(e, answer.json()["access_token"]) == 200
    assert "refresh_token" not in answer.json()
    bad = [
        *(good, "x", "a.b.c", assertion(other)),
        *(assertion(iss="x"), assertion(aud="https://x"), assertion(exp=time.time() - 1)),
        *(assertion(exp=time.time() + 9999), assertion(sub="")),
    ]
    for text in bad:
        assert refusal(ask(e, JWT_BEARER, assertion=text)) == (400, "invalid_grant"), text
    with pytest.raises(ValueError, match="No RSA or EC key"):
        sandbox.register_key("app", "nonsense")


def test_login(sandbox: SandboxClient) -> None:
    e = sandbox.endpoint
    fields = {"username": e.username, "password": e.password}
    for body in ({"json": fields}, {"data": fields}):
        answer = requests.post(e.url + "/session/login", timeout=10, **body)  # type: ignore[arg-type]
        assert status(e, answer.json()["data"]["token"]) == 200
        assert status(e, cookies={"session": answer.cookies["session"]}) == 200
    wrong = requests.post(e.url + "/session/login", json=fields | {"password": "x"}, timeout=10)
    assert wrong.status_code == 401
    assert sandbox.tokens()["granted"] == {"session": 2}


def test_token_requests_are_in_the_log_and_can_go_wrong(sandbox: SandboxClient) -> None:
    e = sandbox.endpoint
    sandbox.faults(
        [
            {"match": {"path": "/oauth/token"}, "times": 1, "fault": {"kind": "status", "status": 503}},
            {"match": {"path": "/oauth/token"}, "times": 1, "fault": {"kind": "reset", "applied": True}},
        ]
    )
    assert ask(e, "client_credentials").status_code == 503
    with pytest.raises(requests.ConnectionError):
        ask(e, "client_credentials")
    assert ask(e, "client_credentials").status_code == 200
    assert [(r["path"], r["status"]) for r in sandbox.received()] == [
        ("/oauth/token", 503),
        ("/oauth/token", None),
        ("/oauth/token", 200),
    ]
    assert sandbox.tokens()["granted"] == {"client_credentials": 2}
    sandbox.reset()
    assert sandbox.tokens() == {"granted": {}, "refused": {}, "expired": 0}


def test_tokens_survive_a_restart(tmp_path: Path) -> None:
    endpoint, _ = ensure_running(tmp_path)
    try:
        access, refresh = tokens(endpoint)
        stop(tmp_path)
        endpoint, started = ensure_running(tmp_path)
        assert started
        assert status(endpoint, access) == 200
        again = ask(endpoint, "refresh_token", refresh_token=refresh)
        assert status(endpoint, again.json()["access_token"]) == 200
    finally:
        stop(tmp_path)
