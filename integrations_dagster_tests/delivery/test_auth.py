"""Every kind of authentication against the sandbox, and what is said when it does not let one in."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from joserfc.jwk import ECKey, RSAKey

from integrations_dagster.delivery.accounts import Account, AccountSettings, AuthSettings, connect
from integrations_dagster.delivery.auth.authorize import Authorization
from integrations_dagster.delivery.auth.registry import authorizing, credentials, fingerprint, token_file
from integrations_dagster.delivery.credentials import Credentials
from integrations_dagster.delivery.transports.http import NotSent
from integrations_dagster.destinations.errors import DestinationError, Refused, Throttled
from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster_tests.delivery.auth import READ, account, client, refreshing

RSA = RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-256")
SECRET = "very-secret-7c21"


def status(account: Account, lets_in: Credentials) -> int:
    grant = lets_in.grant()
    return requests.get(account.base_url + READ, headers=grant.headers, params=grant.query, timeout=10).status_code


def allowed(account: Account, storage: Path) -> None:
    """A person allows the account: `integrations auth` without its words."""
    with Authorization(authorizing(account), 0) as walk:
        browser = threading.Thread(target=requests.get, args=(walk.url,), kwargs={"timeout": 10})
        browser.start()
        walk.wait(10, token_file(account, storage))
        browser.join()


def kinds(e: Endpoint) -> dict[str, Account]:
    login = {"login_path": "/session/login", "username": e.username, "password": e.password}
    pem = RSA.as_pem(private=True).decode()
    jwt = {"token_url": f"{e.url}/oauth/token", "issuer": "app", "subject": "me", "audience": e.url}
    return {
        "bearer": account(e, "bearer", token=e.token),
        "api key in a header": account(e, "api_key", key=e.api_key, header="X-API-Key"),
        "api key in the query": account(e, "api_key", key=e.api_key, query="api_key"),
        "basic": account(e, "basic", username=e.username, password=e.password),
        "client credentials": account(e, "client_credentials", **client(e), scope="a b", audience="x"),
        "client credentials, basic": account(e, "client_credentials", **client(e), client_auth="basic"),
        "jwt": account(e, "jwt_bearer", **jwt, private_key=pem, scope="a"),
        "jwt, in one line": account(e, "jwt_bearer", **jwt, private_key=pem.replace("\n", "\\n")),
        "login, token": account(e, "session", **login, token_path="data.token"),
        "login, form": account(e, "session", **login, token_path="data.token", body="form"),
        "login, cookie": account(e, "session", **login, cookie="session"),
        "login, cookie in a header": account(
            e, "session", **login, cookie="session", header="Authorization: Bearer {token}"
        ),
    }


@pytest.fixture
def client_of(sandbox: Endpoint) -> SandboxClient:
    found = SandboxClient(sandbox)
    found.register_key("app", RSA.as_pem(private=False).decode())
    return found


@pytest.mark.parametrize("kind", kinds(Endpoint("i", "http://127.0.0.1:1", "t", "s", 0, 0.0)))
def test_a_kind_lets_in(kind: str, sandbox: Endpoint, client_of: SandboxClient, tmp_path: Path) -> None:
    one = kinds(sandbox)[kind]
    lets_in = credentials(one, tmp_path)
    assert status(one, lets_in) == 200
    assert status(one, lets_in) == 200
    grant = lets_in.grant()
    carried = [*grant.headers.values(), *grant.query.values()]
    assert any(secret in value for secret in lets_in.secrets() for value in carried)
    for secret in lets_in.secrets():
        assert secret not in repr((grant, one, lets_in))
    if not list(tmp_path.iterdir()):
        assert not lets_in.renew(grant)
        return
    assert sum(client_of.tokens()["granted"].values()) == 1
    # Another process finds the token; after a refusal there is another, once.
    other = credentials(one, tmp_path)
    assert other.grant().serial == grant.serial
    assert lets_in.renew(grant)
    assert other.renew(grant)
    assert other.grant().serial == lets_in.grant().serial != grant.serial
    assert status(one, other) == 200
    assert sum(client_of.tokens()["granted"].values()) == 2


def test_elliptic_keys(sandbox: Endpoint, tmp_path: Path) -> None:
    SandboxClient(sandbox).register_key("app", EC.as_pem(private=False).decode())
    rest = {"token_url": f"{sandbox.url}/oauth/token", "issuer": "app", "subject": "me", "audience": sandbox.url}
    pem = EC.as_pem(private=True).decode()
    one = account(sandbox, "jwt_bearer", **rest, private_key=pem, algorithm="ES256")
    assert status(one, credentials(one, tmp_path)) == 200
    with pytest.raises(Misconfigured, match=r"auth\.private_key is no private key for RS256"):
        credentials(account(sandbox, "jwt_bearer", **rest, private_key=pem), tmp_path)


def test_a_person_allows_an_account_once(sandbox: Endpoint, tmp_path: Path) -> None:
    one = refreshing(sandbox, scope="a b")
    with pytest.raises(Refused, match="There is no refresh token yet") as caught:
        credentials(one, tmp_path).grant()
    assert "`integrations auth crm --target prod`" in caught.value.remedy
    allowed(one, tmp_path)
    lets_in = credentials(one, tmp_path)
    assert status(one, lets_in) == 200
    before = token_file(one, tmp_path).read()
    assert before is not None
    assert lets_in.renew(lets_in.grant())
    after = token_file(one, tmp_path).read()
    assert after is not None
    assert (after.refresh != before.refresh, after.grant == before.grant) == (True, True)
    assert status(one, lets_in) == 200


def test_the_token_file_is_for_its_owner_only_and_tells_accounts_apart(sandbox: Endpoint, tmp_path: Path) -> None:
    one = refreshing(sandbox)
    allowed(one, tmp_path)
    folder = tmp_path / "tokens"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o600}
    assert {p.suffix for p in folder.iterdir()} == {".json", ".lock"}
    names = {
        token_file(a, tmp_path).path
        for a in (
            one,
            replace(one, target="dev"),
            replace(one, destination="other"),
            replace(one, identity="x"),
            refreshing(sandbox, scope="a"),
        )
    }
    assert len(names) == 5
    # A new secret of the same client keeps the token.
    secret = replace(one, auth=account(sandbox, "x", **dict(one.auth.settings) | {"client_secret": "new"}).auth)  # type: ignore[union-attr]
    assert token_file(replace(secret, auth=replace(secret.auth, kind="refresh_token")), tmp_path).path in names  # type: ignore[type-var]


def test_the_fingerprint_changes_with_the_permission_and_not_with_the_token(sandbox: Endpoint, tmp_path: Path) -> None:
    one = refreshing(sandbox)
    seen = [fingerprint(one, tmp_path)]
    allowed(one, tmp_path)
    seen.append(fingerprint(one, tmp_path))
    lets_in = credentials(one, tmp_path)
    lets_in.renew(lets_in.grant())
    assert fingerprint(one, tmp_path) == seen[-1]
    allowed(one, tmp_path)
    seen.append(fingerprint(one, tmp_path))
    seen += [fingerprint(account(sandbox, "bearer", token=t), tmp_path) for t in ("a", "b")]
    assert len(set(seen)) == 5
    assert fingerprint(replace(one, auth=None), tmp_path) == ""


def test_a_refresh_token_of_the_settings_counts_until_it_was_replaced(sandbox: Endpoint, tmp_path: Path) -> None:
    giver = refreshing(sandbox)
    seeds = []
    for _ in range(2):
        allowed(giver, tmp_path / "elsewhere")
        stored = token_file(giver, tmp_path / "elsewhere").read()
        assert stored is not None
        seeds.append(str(stored.refresh))
    first = refreshing(sandbox, refresh_token=seeds[0])
    lets_in = credentials(first, tmp_path)
    assert status(first, lets_in) == 200
    assert lets_in.renew(lets_in.grant())
    # The seed is used up by now, and what is stored counts.
    again = credentials(first, tmp_path)
    assert status(first, again) == 200
    assert again.renew(again.grant())
    # Another one in the settings replaces what is stored.
    second = refreshing(sandbox, refresh_token=seeds[1])
    assert token_file(second, tmp_path).path == token_file(first, tmp_path).path
    assert fingerprint(second, tmp_path) != fingerprint(first, tmp_path)
    assert status(second, credentials(second, tmp_path)) == 200
    assert credentials(second, tmp_path).grant().serial != again.grant().serial


def test_a_damaged_token_file_is_no_token(sandbox: Endpoint, tmp_path: Path) -> None:
    one = account(sandbox, "client_credentials", **client(sandbox))
    serial = credentials(one, tmp_path).grant().serial
    path = token_file(one, tmp_path).path
    for text in ("", "{", "[]", '{"version": 2}', path.read_text()[:-9]):
        path.write_text(text)
        assert credentials(one, tmp_path).grant().serial != serial


# What goes wrong


def test_wrong_credentials_are_refused_with_a_remedy_and_without_secrets(sandbox: Endpoint, tmp_path: Path) -> None:
    url = f"{sandbox.url}/oauth/token"
    cases = [
        (
            "client_credentials",
            {"token_url": url, "client_id": "x", "client_secret": SECRET},
            "invalid_client",
            "client_id",
        ),
        ("refresh_token", client(sandbox) | {"refresh_token": SECRET}, "invalid_grant", "auth.refresh_token"),
        (
            "session",
            {"login_path": "/session/login", "username": "u", "password": SECRET, "token_path": "data.token"},
            "login_failed",
            "username and password",
        ),
        (
            "session",
            {"login_path": "/session/login", "username": "u", "password": SECRET, "cookie": "session"},
            "login_failed",
            "username and password",
        ),
        (
            "session",
            {"login_path": "/session/login", "username": "sandbox", "password": sandbox.password, "cookie": "sid"},
            "NO_TOKEN",
            "auth.cookie",
        ),
        (
            "session",
            {"login_path": "/session/login", "username": "sandbox", "password": sandbox.password, "token_path": "x.y"},
            "NO_TOKEN",
            "auth.token_path",
        ),
        (
            "client_credentials",
            client(sandbox) | {"token_url": f"{sandbox.url}/oauth/nothing"},
            "404",
            "Correct its URL",
        ),
    ]
    for kind, settings, code, remedy in cases:
        lets_in = credentials(account(sandbox, kind, **settings), tmp_path)
        with pytest.raises(Refused) as caught:
            lets_in.grant()
        assert caught.value.code == code
        assert remedy in caught.value.remedy
        assert SECRET not in caught.value.reason + caught.value.remedy
        assert sandbox.password not in caught.value.reason
    asked = SandboxClient(sandbox).last_seq()
    for _ in range(3):
        with pytest.raises(Refused):
            lets_in.grant()
    assert SandboxClient(sandbox).last_seq() == asked  # a refusal is not asked for again


def test_a_refusal_holds_until_a_person_has_acted(sandbox: Endpoint, tmp_path: Path) -> None:
    one = refreshing(sandbox)
    lets_in = credentials(one, tmp_path)
    with pytest.raises(Refused):
        lets_in.grant()
    allowed(one, tmp_path)
    assert status(one, lets_in) == 200


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ({"kind": "status", "status": 503}, NotSent, "503"),
        ({"kind": "status", "status": 500, "body": "<html>"}, NotSent, "500"),
        ({"kind": "status", "status": 400, "body": {"error": "temporarily_unavailable"}}, NotSent, "temporarily_unav"),
        ({"kind": "status", "status": 429, "retry_after": 7}, Throttled, "429"),
        ({"kind": "status", "status": 403, "body": "no"}, Refused, "403"),
        ({"kind": "status", "status": 200, "body": {"error": "invalid_grant"}}, Refused, "invalid_grant"),
        ({"kind": "status", "status": 200, "body": {"access_token": "a", "token_type": "mac"}}, Refused, "TOKEN_TYPE"),
        ({"kind": "status", "status": 200, "body": {"access_token": "a\nb: c"}}, NotSent, "BROKEN_ANSWER"),
        ({"kind": "status", "status": 200, "body": ["a"]}, NotSent, "BROKEN_ANSWER"),
        ({"kind": "status", "status": 307, "headers": {"location": "http://127.0.0.1:1/"}}, Refused, "307"),
        ({"kind": "reset"}, NotSent, "NO_CONNECTION"),
        ({"kind": "truncated"}, NotSent, "NO_CONNECTION"),
        ({"kind": "malformed"}, NotSent, "BROKEN_ANSWER"),
        ({"kind": "oversized", "bytes": 4_000_000}, NotSent, "ANSWER_TOO_LONG"),
        ({"kind": "html"}, NotSent, "503"),
    ],
    ids=str,
)
def test_trouble_at_the_token_endpoint(
    sandbox: Endpoint, tmp_path: Path, fault: dict[str, object], kind: type[DestinationError], code: str
) -> None:
    SandboxClient(sandbox).faults([{"match": {"path": "/oauth/token"}, "times": 1, "fault": fault}])
    one = account(sandbox, "client_credentials", **client(sandbox))
    with pytest.raises(DestinationError) as caught:
        credentials(one, tmp_path).grant()
    assert type(caught.value) is kind, caught.value
    assert caught.value.code.startswith(code)
    assert sandbox.client_secret not in str(caught.value)
    if isinstance(caught.value, Throttled):
        assert caught.value.wait == 7
    assert status(one, credentials(one, tmp_path)) == 200


def test_the_description_of_a_refusal_is_scrubbed(sandbox: Endpoint, tmp_path: Path) -> None:
    body = {"error": "invalid_client", "error_description": f"no client has {sandbox.client_secret}"}
    fault = {"kind": "status", "status": 401, "body": body}
    SandboxClient(sandbox).faults([{"match": {"path": "/oauth/token"}, "fault": fault}])
    with pytest.raises(Refused, match="invalid_client: no client has •••") as caught:
        credentials(account(sandbox, "client_credentials", **client(sandbox)), tmp_path).grant()
    assert sandbox.client_secret not in str(caught.value)


# Settings


def settings(auth: AuthSettings | None, **changes: object) -> AccountSettings:
    base = AccountSettings("crm", "hubspot", "prod", False, "https://x.example", None, None, None, 10.0, auth)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_settings_come_from_text_and_environment(tmp_path: Path) -> None:
    auth = AuthSettings("basic", {"username": "ada"}, {"password": "PASSWORD"})
    found = connect(settings(auth), tmp_path, {"PASSWORD": f"  {SECRET} with ümlauts\n"})
    assert found.auth is not None
    assert dict(found.auth.settings) == {"username": "ada", "password": f"{SECRET} with ümlauts"}
    assert SECRET not in repr(found)
    with pytest.raises(Misconfigured, match=r"the environment variable PASSWORD \(auth\.password\) is not set"):
        connect(settings(auth), tmp_path, {})
    short = connect(settings(None, token_env="T"), tmp_path, {"T": "abc"})
    assert credentials(short, tmp_path).grant().headers == {"Authorization": "Bearer abc"}


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("bearer", {"token": "a b"}, "auth.token holds characters that no request can carry"),
        ("bearer", {"token": "a\nb"}, "auth.token holds characters"),
        ("bearer", {}, "auth lacks token"),
        ("api_key", {"key": "k"}, "auth takes exactly one of header and query"),
        ("refresh_token", {"token_url": "http://x.example", "client_id": "i"}, "auth.token_url must begin with https"),
        ("refresh_token", {"token_url": "https://u:p@x.example", "client_id": "i"}, "auth.token_url holds a user"),
        ("no_such", {}, "'no_such' is no kind of authentication"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(
    sandbox: Endpoint, tmp_path: Path, kind: str, given: dict[str, str], words: str
) -> None:
    with pytest.raises(Misconfigured) as caught:
        credentials(account(sandbox, kind, **given), tmp_path)
    assert f"Destination 'crm', target 'prod': {words}" in str(caught.value)


def test_a_fixed_token_costs_no_oauth_library(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom integrations_dagster.delivery.accounts import Account, bearer\n"
        "from integrations_dagster.delivery.auth.registry import credentials, fingerprint\n"
        f"account = Account('hubspot:h', 'https://h', 9.0, False, bearer('t'))\nstorage = Path({str(tmp_path)!r})\n"
        "credentials(account, storage), fingerprint(account, storage)\n"
        "sys.exit(bool({'authlib', 'joserfc', 'cryptography', 'requests'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_no_authentication_sends_nothing(sandbox: Endpoint, tmp_path: Path) -> None:
    grant = credentials(replace(account(sandbox, "x"), auth=None), tmp_path).grant()
    assert (dict(grant.headers), dict(grant.query)) == ({}, {})
