"""Lists that are read page by page: by cursor, next URL, Link header, page number or offset, until there is no more."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from integrations_dagster.destinations.answers import unreadable
from integrations_dagster.destinations.base import Response
from integrations_dagster.destinations.http.reading_forms import NextKeys
from integrations_dagster.destinations.paths import as_text, probe
from integrations_dagster.destinations.values import canonical_json

MOST_EMPTY = 20
"""Empty pages one after the other beyond which a list is taken for one that never ends."""
_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[\w*!#$&+.^`|~-]+\s*=\s*(?:"[^"]*"|[^",;\s]+))*)')
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^",;\s]+))', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a list one is.

    Attributes:
        at: Cursor, page number, offset or address of the page; None: the first, where that has none.
        seen: Digest of the page before, so that one that comes again is noticed.
        empty: Empty pages before it, one after the other.
    """

    at: str | None = None
    seen: str = ""
    empty: int = 0

    @property
    def text(self) -> str:
        return json.dumps([self.at, self.seen, self.empty], separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> Place:
        return cls(*json.loads(text))


def first(paging: NextKeys | None) -> Place:
    """The place of the first page."""
    if paging is None or paging.way not in ("page", "offset"):
        return Place()
    return Place(str(paging.page if paging.way == "page" else paging.offset))


def names(paging: NextKeys | None, place: Place) -> dict[str, Any]:
    """What placeholders stand for on a page; an address is none of them."""
    known: dict[str, Any] = {"cursor": None, "page": None, "offset": None}
    if paging is not None and paging.way in known:
        counts = paging.way != "cursor" and place.at is not None
        # In a body a number is one.
        known[paging.way] = int(place.at or 0) if counts else place.at
    return known


def parameter(paging: NextKeys | None, place: Place) -> str:
    """The query parameter of a page, encoded, or ""."""
    if paging is None or paging.param is None or place.at is None:
        return ""
    return f"{quote(paging.param, safe='')}={quote(place.at, safe='')}"


def following(
    paging: NextKeys | None, place: Place, records: list[Any], document: Any, response: Response, label: str
) -> Place | None:
    """The place of the next page, or None: this was the last.

    Raises:
        Unavailable: The list does not go on, nor end: a page that comes again, or empty ones without end.
    """
    if paging is None:
        return None
    at = _next(paging, place, records, document, response, label)
    if at is None:
        return None
    if not records and at == place.at:
        # Some APIs name the last page again and again.
        return None
    digest = hashlib.blake2b(canonical_json(records), digest_size=12).hexdigest() if records else ""
    if (digest and digest == place.seen) or at == place.at:
        raise unreadable(label, response.status, "a page that it has answered before, so that the list never ends")
    empty = place.empty + 1 if not records else 0
    if empty > MOST_EMPTY:
        raise unreadable(label, response.status, f"{empty} empty pages one after the other")
    return Place(at, digest, empty)


def _next(
    paging: NextKeys, place: Place, records: list[Any], document: Any, response: Response, label: str
) -> str | None:
    if paging.more is not None:
        more = probe(paging.more, document)
        if not isinstance(more, bool):
            raise unreadable(label, response.status, f"no true or false at `{paging.more}`")
        if not more:
            return None
    if paging.size is not None and len(records) < paging.size:
        return None
    if paging.way == "link":
        return _linked(response.headers.get("link", ""), paging.link or "next")
    if paging.way in ("cursor", "url"):
        found = probe(paging.cursor or paging.url or "", document)
        if found is None or found == "":
            return None
        text = as_text(found)
        if not text:
            raise unreadable(label, response.status, f"no text at `{paging.cursor or paging.url}`")
        return text
    return _counted(paging, place, records, document, response, label)


def _counted(
    paging: NextKeys, place: Place, records: list[Any], document: Any, response: Response, label: str
) -> str | None:
    at = int(place.at or 0)
    if not records and paging.more is None:
        return None
    through = at + len(records)
    if paging.total is not None:
        total = as_text(probe(paging.total, document))
        if not total.isdigit():
            raise unreadable(label, response.status, f"no number at `{paging.total}`")
        if paging.way == "offset" and through - (paging.offset or 0) >= int(total):
            return None
        if paging.way == "page" and paging.size and (at - (paging.page or 0) + 1) * paging.size >= int(total):
            return None
    return str(through if paging.way == "offset" else at + 1)


def _linked(header: str, relation: str) -> str | None:
    """The target of a Link header's relation (RFC 8288)."""
    for target, parameters in _LINK.findall(header):
        for quoted, plain in _REL.findall(parameters):
            if relation.lower() in (quoted or plain).lower().split():
                return str(target)
    return None
