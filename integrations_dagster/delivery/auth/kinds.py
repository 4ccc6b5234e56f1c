"""What each kind of authentication takes, as data: YAML is checked against it, and documentation made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import MappingProxyType
from urllib.parse import urlsplit
from xml.etree import ElementTree

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's or a cookie's name."""


def _https(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https") or any(c.isspace() for c in value):
        return "is no http(s) URL"
    if parts.username or parts.password:
        return "holds a user or a password"
    if parts.scheme == "http" and not _is_loopback(host):
        return "must begin with https://, since secrets are sent there"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _carried(value: str) -> str:
    return "" if value.isascii() and value.isprintable() else "holds characters that no request can carry"


def _token(value: str) -> str:
    return _carried(value) or ("holds characters that no request can carry" if " " in value else "")


def _name(value: str) -> str:
    return "" if _NAME.fullmatch(value) else "is no name of a header or cookie"


def _parameter(value: str) -> str:
    return "" if re.fullmatch(r"[A-Za-z0-9_.~-]+", value) else "is no name of a query parameter"


def _path(value: str) -> str:
    return "" if value.startswith("/") and not any(c.isspace() for c in value) else 'must begin with "/"'


def _template(value: str) -> str:
    name, colon, rest = value.partition(":")
    if not colon or not _NAME.fullmatch(name) or rest.count("{token}") != 1 or _carried(value):
        return 'must be a header with one {token} in it, as "Authorization: Bearer {token}"'
    return ""


def _login(value: str) -> str:
    try:
        json.loads(value)
    except ValueError:
        return "is no JSON"
    missing = [name for name in ("{username}", "{password}") if name not in value]
    return f"has no {' and no '.join(missing)} in it" if missing else ""


def _login_xml(value: str) -> str:
    try:
        # What is in braces may stand in an attribute or a text, and is none of them by itself.
        ElementTree.fromstring(value)  # noqa: S314 (the project's own text)
    except ElementTree.ParseError:
        return "is no XML"
    if "<!DOCTYPE" in value:
        return "has a document type"
    missing = [name for name in ("{username}", "{password}") if name not in value]
    return f"has no {' and no '.join(missing)} in it" if missing else ""


def _composed(value: str) -> str:
    return "" if "{" in value and "}" in value else 'has no part of the answer in it, as "{data.token}"'


def _user(value: str) -> str:
    return "must not hold a colon" if ":" in value else ""


def _key(value: str) -> str:
    return "" if "PRIVATE KEY-----" in value else "is no private key in PEM form"


def _anything(_value: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a kind.

    Attributes:
        text: What it is, for documentation.
        required: Whether it must be given.
        secret: Whether it may be given as {env: NAME} only.
        default: What holds where it is not given; "": nothing.
        choices: The values it may have; empty: any that `wrong` takes.
        wrong: Says of a value what is wrong with it, without repeating it; "" where nothing is.
    """

    text: str
    required: bool = False
    secret: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()
    wrong: Callable[[str], str] = _anything


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of authentication.

    Attributes:
        text: What it is, for documentation.
        settings: What it takes, by name.
        one_of: Groups of settings of which exactly one must be given.
        at_most: Groups of settings of which no two go together.
    """

    text: str
    settings: Mapping[str, Setting]
    one_of: tuple[tuple[str, ...], ...] = field(default=())
    at_most: tuple[tuple[str, ...], ...] = field(default=())

    def wrong(self, given: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
        """What is wrong with settings: the setting (or "") and a clause that follows its name.

        Args:
            given: The settings by name; None where an environment variable has the value, which is not known yet.
        """
        for name, value in given.items():
            setting = self.settings.get(name)
            if setting is None or value is None:
                continue
            if setting.choices and value not in setting.choices:
                yield name, f"must be one of {', '.join(setting.choices)}"
            elif what := setting.wrong(value):
                yield name, what
        missing = [name for name, setting in self.settings.items() if setting.required and name not in given]
        if missing:
            yield "", f"lacks {' and '.join(missing)}"
        for group in self.one_of:
            if sum(name in given for name in group) != 1:
                yield "", f"takes exactly one of {' and '.join(group)}"
        for group in self.at_most:
            if sum(name in given for name in group) > 1:
                yield "", f"takes at most one of {' and '.join(group)}"


_TOKEN_URL = Setting("Where tokens are asked for.", required=True, wrong=_https)
_CLIENT_ID = Setting("Id of the client (the app) at the vendor.", required=True, wrong=_carried)
_CLIENT_SECRET = Setting("Its secret.", required=True, secret=True, wrong=_carried)
_CLIENT_AUTH = Setting(
    "How id and secret travel: in the body (`post`) or as HTTP Basic (`basic`).",
    default="post",
    choices=("post", "basic"),
)
_SCOPE = Setting("Scopes, separated by spaces.", wrong=_carried)

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "bearer": Kind(
            "A token that does not change; `token: {env: NAME}` of the target is its short form.",
            {"token": Setting("The token.", required=True, secret=True, wrong=_token)},
        ),
        "api_key": Kind(
            "A key in a header or in the query of every request.",
            {
                "key": Setting("The key.", required=True, secret=True, wrong=_carried),
                "header": Setting("Name of the header.", wrong=_name),
                "query": Setting("Name of the query parameter.", wrong=_parameter),
            },
            one_of=(("header", "query"),),
        ),
        "basic": Kind(
            "HTTP Basic: a user and a password.",
            {
                "username": Setting("The user.", required=True, wrong=_user),
                "password": Setting("The password.", required=True, secret=True),
            },
        ),
        "client_credentials": Kind(
            "OAuth 2 client credentials (RFC 6749, 4.4): the app itself is the user.",
            {
                "token_url": _TOKEN_URL,
                "client_id": _CLIENT_ID,
                "client_secret": _CLIENT_SECRET,
                "client_auth": _CLIENT_AUTH,
                "scope": _SCOPE,
                "audience": Setting("The API that the token is for, where the vendor asks for it.", wrong=_carried),
            },
        ),
        "refresh_token": Kind(
            "OAuth 2 refresh token (RFC 6749, 6), got by `integrations auth` or given.",
            {
                "token_url": _TOKEN_URL,
                "client_id": _CLIENT_ID,
                "client_secret": Setting("Its secret; none for a public client.", secret=True, wrong=_carried),
                "client_auth": _CLIENT_AUTH,
                "authorize_url": Setting("Where a person allows it; for `integrations auth`.", wrong=_https),
                "scope": _SCOPE,
                "refresh_token": Setting(
                    "The first refresh token, got elsewhere; instead of `integrations auth`.",
                    secret=True,
                    wrong=_carried,
                ),
            },
        ),
        "jwt_bearer": Kind(
            "OAuth 2 JWT bearer (RFC 7523): an assertion signed with a private key (service accounts).",
            {
                "token_url": _TOKEN_URL,
                "issuer": Setting("`iss`: the app or service account.", required=True),
                "subject": Setting("`sub`: the user it acts for.", required=True),
                "audience": Setting("`aud`: the vendor, as it names itself.", required=True),
                "private_key": Setting("The key in PEM form.", required=True, secret=True, wrong=_key),
                "algorithm": Setting("How it is signed.", default="RS256", choices=ALGORITHMS),
                "scope": _SCOPE,
            },
        ),
        "session": Kind(
            "A login with user and password, which answers a token or sets a cookie.",
            {
                "login_url": Setting("Where to log in.", wrong=_https),
                "login_path": Setting("The same, below base_url.", wrong=_path),
                "username": Setting("The user.", required=True),
                "password": Setting("The password.", required=True, secret=True),
                "username_field": Setting("Its name in the body.", default="username"),
                "password_field": Setting("Its name in the body.", default="password"),
                "body": Setting("Form of the body.", default="json", choices=("json", "form")),
                "login_json": Setting(
                    "The whole body as JSON text, with {username} and {password} in it: of a login that is a call.",
                    wrong=_login,
                ),
                "login_xml": Setting(
                    "The whole body as XML text, with {username} and {password} in it: an envelope of SOAP.",
                    wrong=_login_xml,
                ),
                "token_path": Setting(
                    "Where the token is in the JSON answer, with dots: `data.token`, `result.1`; in an XML answer, by "
                    "the names of elements."
                ),
                "token": Setting(
                    "The token, put together from several parts of the answer: `{username}:{result.0}:{result.1}`.",
                    wrong=_composed,
                ),
                "token_encoding": Setting("How it is encoded.", default="plain", choices=("plain", "base64")),
                "cookie": Setting("Name of the cookie that is the token.", wrong=_name),
                "header": Setting(
                    "How the token travels; a cookie is sent back as a cookie unless this is given.",
                    default="Authorization: Bearer {token}",
                    wrong=_template,
                ),
                "token_in": Setting(
                    "`body`: the token travels in no header, but where the requests' bodies have a place for it (kind "
                    "`soap`).",
                    choices=("body",),
                ),
            },
            one_of=(("login_url", "login_path"), ("token_path", "cookie", "token")),
            at_most=(("login_json", "login_xml"), ("token_in", "header"), ("token_in", "cookie")),
        ),
    }
)
"""Kind to what it takes."""
