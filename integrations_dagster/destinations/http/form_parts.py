"""What several of the forms under `api:` are made of: lines of requests, headers, checked placeholders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator

from integrations_dagster.destinations.http.bodies import XML_NAME
from integrations_dagster.destinations.http.templates import SPREAD, check
from integrations_dagster.keys import mistake, problem

METHODS = ("POST", "PUT", "PATCH", "DELETE")
"""Methods that change something."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
Encoding: TypeAlias = Literal["json", "form", "xml"]


def _request(value: Any) -> Any:
    method, _, path = value.strip().partition(" ") if isinstance(value, str) else ("", "", "")
    path = path.strip()
    if method not in (*METHODS, "GET") or not (path == "" or path.startswith("/")):
        raise problem('takes a method and a path below base_url, as "POST /contacts/batch"')
    if any(c in path for c in "?#") or any(c.isspace() or not c.isprintable() for c in path):
        raise problem("has a query, fragment or space in its path. Parameters belong in `query`.")
    return f"{method} {path}".strip()


RequestLine = Annotated[str, BeforeValidator(_request)]


def _header_name(value: Any) -> Any:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise problem("is no name of a header")
    return value


HeaderName = Annotated[str, BeforeValidator(_header_name)]


def _headers(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise problem("takes a mapping of header names to texts")
    for name, text in value.items():
        _header_name(name)
        if isinstance(text, bool) or not isinstance(text, str | int):
            raise mistake((str(name),), "takes text")
        if not str(text).isascii() or not str(text).isprintable():
            raise mistake((str(name),), "holds characters that no header can carry")
        if str(name).lower() in ("authorization", "cookie", "host", "content-length", "connection"):
            raise mistake((str(name),), "is not for a file to say: credentials are `auth` of the target.")
    return {str(name): str(text) for name, text in value.items()}


Headers = Annotated[dict[str, str], BeforeValidator(_headers)]
Query: TypeAlias = dict[str, Any]


def texts(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if not values or any(isinstance(one, bool) or not isinstance(one, str | int) for one in values):
        raise problem("takes a list of texts or numbers")
    return [str(one) for one in values]


def check_xml(path: Sequence[str], node: Any, *, root: bool) -> None:
    if isinstance(node, Mapping):
        if root and len(node) != 1:
            raise mistake(path, "takes one key, the root element of the document.")
        for name, value in node.items():
            plain = str(name).removeprefix("@")
            if name not in (SPREAD, "#text") and not XML_NAME.fullmatch(plain):
                raise mistake((*path, str(name)), "is no name of an element or attribute.")
            check_xml((*path, str(name)), value, root=False)
    elif isinstance(node, list):
        for place, value in enumerate(node):
            check_xml((*path, str(place)), value, root=False)


def check_templates(keys: Any, allowed: tuple[str, ...], body: tuple[str, ...] | None = None) -> None:
    checked(("request",), keys.request, allowed)
    checked(("headers",), keys.headers, allowed)
    for name in ("query", "body"):
        if hasattr(keys, name):
            checked((name,), getattr(keys, name), body or allowed if name == "body" else allowed)


def checked(path: Sequence[str], node: Any, allowed: Sequence[str]) -> None:
    try:
        check(node, allowed)
    except ValueError as error:
        raise mistake(path, str(error)) from None
