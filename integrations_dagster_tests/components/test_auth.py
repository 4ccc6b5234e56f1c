"""`auth` of a target in YAML: what arrives in the spec, and what is said of a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from integrations_dagster.components import Destination
from integrations_dagster.delivery.auth.kinds import KINDS
from integrations_dagster.sync.spec import AuthSpec, Env
from integrations_dagster.vocabulary import Misconfigured

SECRET = "plain-secret-1f8b"


def load(auth: str, kind: str = "webhook") -> Destination:
    text = f"name: hook\nkind: {kind}\ntargets:\n  prod:\n    base_url: https://x.example\n    auth: {auth}\n"
    destination: Destination = Destination.resolve_from_yaml(text)
    return destination


GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "bearer": ("{kind: bearer, token: {env: T}}", {"token": Env("T")}),
    "api_key": ("{kind: api_key, key: {env: K}, header: X-Key}", {"key": Env("K"), "header": "X-Key"}),
    "basic": ("{kind: basic, username: ada, password: {env: P}}", {"username": "ada", "password": Env("P")}),
    "client_credentials": (
        "{kind: client_credentials, token_url: https://t.example/token, client_id: {env: I}, client_secret: {env: S}}",
        {"token_url": "https://t.example/token", "client_id": Env("I"), "client_secret": Env("S")},
    ),
    "refresh_token": (
        "{kind: refresh_token, token_url: {env: U}, client_id: '1', authorize_url: https://a.example, scope: a b}",
        {"token_url": Env("U"), "client_id": "1", "authorize_url": "https://a.example", "scope": "a b"},
    ),
    "jwt_bearer": (
        "{kind: jwt_bearer, token_url: https://t.example, issuer: i, subject: s, audience: a, private_key: {env: K}}",
        {
            "token_url": "https://t.example",
            "issuer": "i",
            "subject": "s",
            "audience": "a",
            "private_key": Env("K"),
        },
    ),
    "session": (
        "{kind: session, login_path: /login, username: u, password: {env: P}, cookie: sid}",
        {"login_path": "/login", "username": "u", "password": Env("P"), "cookie": "sid"},
    ),
}


def test_there_is_an_example_of_every_kind() -> None:
    assert set(GOOD) == set(KINDS)


@pytest.mark.parametrize("kind", GOOD)
def test_what_yaml_says_arrives_in_the_spec(kind: str) -> None:
    text, settings = GOOD[kind]
    assert load(text).spec("prod").target.auth == AuthSpec(kind, settings)


def test_token_is_the_short_form_of_bearer() -> None:
    text = "name: hook\nkind: webhook\ntargets: {prod: {base_url: https://x.example, token: {env: T}}}\n"
    target = Destination.resolve_from_yaml(text).spec("prod").target
    assert (target.token, target.auth) == (Env("T"), None)


@pytest.mark.parametrize(
    ("auth", "words"),
    [
        ("bearer", "targets.prod.auth takes a mapping with a kind, as {kind: basic"),
        ("{token: {env: T}}", "targets.prod.auth takes a mapping with a kind"),
        ("{kind: oauth}", "targets.prod.auth.kind is no kind of authentication."),
        ("{kind: refresh_tokn}", 'Did you mean "refresh_token"?'),
        ("{kind: 7}", "targets.prod.auth.kind is no kind of authentication."),
        ("{kind: bearer}", "targets.prod.auth lacks token"),
        (f"{{kind: bearer, token: {SECRET}}}", "targets.prod.auth.token takes {env: NAME}"),
        ("{kind: bearer, token: {env: 'a b'}}", "targets.prod.auth.token takes {env: NAME}"),
        ("{kind: bearer, tokn: {env: T}}", 'auth.tokn is no key here. Did you mean "token"? Known keys: kind, token.'),
        (f"{{kind: basic, username: ada, password: {SECRET}}}", "targets.prod.auth.password takes {env: NAME}"),
        ("{kind: basic, username: 7, password: {env: P}}", "targets.prod.auth.username takes text (in quotes"),
        ("{kind: basic, username: 'a:b', password: {env: P}}", "targets.prod.auth.username must not hold a colon"),
        ("{kind: api_key, key: {env: K}}", "targets.prod.auth takes exactly one of header and query"),
        ("{kind: api_key, key: {env: K}, header: A, query: b}", "auth takes exactly one of header and query"),
        ("{kind: api_key, key: {env: K}, header: 'A B'}", "targets.prod.auth.header is no name of a header"),
        ("{kind: api_key, key: {env: K}, query: 'a=b'}", "targets.prod.auth.query is no name of a query parameter"),
        (
            "{kind: client_credentials, token_url: http://t.example, client_id: i, client_secret: {env: S}}",
            "targets.prod.auth.token_url must begin with https://",
        ),
        (
            "{kind: client_credentials, token_url: https://t.example}",
            "targets.prod.auth lacks client_id and client_secret",
        ),
        (
            "{kind: client_credentials, token_url: https://t.example, client_id: i, client_secret: {env: S}, "
            "client_auth: header}",
            "targets.prod.auth.client_auth must be one of post, basic",
        ),
        (
            "{kind: jwt_bearer, token_url: https://t.example, issuer: i, subject: s, audience: a, "
            "private_key: {env: K}, algorithm: none}",
            "targets.prod.auth.algorithm must be one of RS256",
        ),
        ("{kind: session, username: u, password: {env: P}, cookie: s}", "exactly one of login_url and login_path"),
        (
            "{kind: session, login_path: login, username: u, password: {env: P}, cookie: s}",
            'targets.prod.auth.login_path must begin with "/"',
        ),
        (
            "{kind: session, login_path: /l, username: u, password: {env: P}, token_path: t, header: 'X: token'}",
            "targets.prod.auth.header must be a header with one {token} in it",
        ),
    ],
)
def test_a_mistake_is_named(auth: str, words: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(auth)
    assert words in str(caught.value)
    assert "<string>:" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_destination_may_take_few_kinds() -> None:
    basic = "{kind: basic, username: u, password: {env: P}}"
    load(basic, "webhook")
    with pytest.raises(Misconfigured, match=r"targets\.prod\.auth is of kind basic, which HubSpot does not take\. It"):
        load(basic, "hubspot")
    load(GOOD["refresh_token"][0], "hubspot")


def test_the_sandbox_has_its_own() -> None:
    with pytest.raises(Misconfigured, match="has its own auth"):
        Destination.resolve_from_yaml(
            "name: hook\nkind: webhook\ntargets: {sandbox: {sandbox: true, auth: {kind: bearer, token: {env: T}}}}\n"
        )


def test_the_documentation_names_every_kind_and_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "authentication.md").read_text(encoding="utf-8")
    for name, kind in KINDS.items():
        part = page.split(f"\n### {name}\n")[1].split("\n### ")[0].split("\n## ")[0]
        for setting in kind.settings:
            assert f"`{setting}`" in part, (name, setting)
