"""What a conformance run needs to know of a destination and of a server that speaks it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

from integrations_dagster.destinations.base import Destination, Limits
from integrations_dagster.sync.spec import AuthSpec
from integrations_dagster.vocabulary import Action, Mode

TEXTS: tuple[str, ...] = (
    "Zoë Müller-Łukasiewicz",
    "Ω μέγα Ж ы Ґ",
    "日本語 漢字 かな カナ",
    "한국어 ภาษาไทย हिन्दी বাংলা",
    "עברית العربية \u200f‏فارسی",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🦄",
    "e\u0301 is not \u00e9",
    "\"double\" 'single' `back` \\slash\\ /slash/",
    "<b>&amp;</b> %41 %s {x} {{ y }} ${z} #{w}",
    "line one\nline two\ttab",
    "a,b;c|d",
    "null",
    "None",
    "0012",
    "1e5",
    "true",
)
"""Texts that must arrive as they are: scripts, composed and decomposed letters, right to left, emoji, quotes, markup,
templates, line breaks, and words that a careless program takes for something else."""

CONTROLS: tuple[str, ...] = ("bell \x07 escape \x1b", "unit \x1f separator")
"""Control characters that JSON allows (escaped) and XML 1.0 does not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that the suite gives in the place of the server."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, document: Any, **headers: str) -> Answer:
        """An answer of JSON; header names with "_" for "-"."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, json.dumps(document).encode(), {"content-type": "application/json", **named})


class Subject(ABC):
    """A destination under test, one object of it, and the server that it is tested against.

    Subclass it, and give it to `conformance.conformance_tests` (pytest) or `conformance.run_checks` (anything else).
    The server must be one whose records may be thrown away: each check begins with `reset`.
    """

    destination: ClassVar[str | type[Destination]]
    """A kind that YAML can name, or a class that is no kind yet."""
    option: Any = None
    """What YAML says under the kind's own key ("api"), as a mapping; None where it has none."""
    object: ClassVar[str]
    """Object at the destination."""
    match: tuple[str, ...] = ()
    """The fields that records are recognized by; empty where that is the primary key."""
    modes: frozenset[Mode] | None = None
    """The modes that the object takes; None: those that the destination declares, and of a kind that YAML describes
    those that its `check` lets pass."""
    text: ClassVar[str]
    """A field, no match value, that takes any text and is kept as it was sent."""
    longest: int = 2000
    """Characters that `text` takes."""
    texts: Sequence[str] = (*TEXTS, *CONTROLS)
    """Texts that `text` must keep; leave out what the vendor documents it does not."""
    takes: Limits | None = None
    """What the vendor says one request takes, where it is to be compared with what the destination says."""
    auth: AuthSpec | None = None
    """How requests are authenticated, with settings as text or as `Env` names of `env`."""
    token: str = ""
    """A bearer token; the short form of `auth`."""
    secret: str = ""
    """What signs requests, where the destination does."""
    env: Mapping[str, str] = {}
    """Environment variables that `auth` names."""
    throttled: Answer = Answer.json(429, {"error": "Too many requests."}, retry_after="1")
    """How the vendor says that there were too many requests."""
    wait: float = 1.0
    """Seconds that `throttled` asks to wait."""
    patience: float = 1.0
    """Seconds after which a request can take no effect any more, in the checks that have to wait for that; the server
    must answer sooner."""
    expired: Answer = Answer.json(401, {"error": "The token has expired."})
    """How the vendor says that credentials are not accepted (any more)."""
    request_id: str = ""
    """Header in which the vendor names a request, in lower case; "" where it names none."""
    deletes_missing: bool = True
    """Whether deleting a record that is not there counts as deleted, rather than as rejected."""
    not_numbers: bool = False
    """Whether NaN and infinity have a form there, as in databases; JSON has none."""
    skip: Mapping[str, str] = {}
    """Checks that say nothing of this destination, by name, each with the reason; it is shown in the report."""

    @property
    def name(self) -> str:
        """How reports call it."""
        return type(self).__name__

    @abstractmethod
    def serve(self) -> AbstractContextManager[str]:
        """Have the server ready while in the context, which gives its base URL, as `base_url` in YAML."""

    @abstractmethod
    def reset(self) -> None:
        """Delete all records of the object."""

    @abstractmethod
    def records(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """All records of the object: for each its match value (or primary key) and its fields. A record that is there
        twice is there twice here too, and one that is deleted is not."""

    @abstractmethod
    def good(self, key: str, version: int) -> dict[str, Any]:
        """A row that the server accepts: field to value.

        Args:
            key: Two letters and six digits, as "cf000012"; match values must contain it in small letters, and no other
                row may have the same.
            version: 1 for the first values of the row, 2 for others: of `text` at least, and of no match value.
        """

    def bad(self, key: str, version: int) -> dict[str, Any] | None:  # noqa: ARG002
        """A row that the server rejects while it accepts others of the same request, for every mode that writes; or
        None if the server rejects none so."""
        return None

    def trusts(self, action: Action) -> str:  # noqa: ARG002
        """Why a 2xx to this action takes all rows whatever its body says, as the vendor documents it; "" where the body
        must say what became of the rows."""
        return ""

    def seed(self, rows: Mapping[str, Mapping[str, Any]]) -> bool:  # noqa: ARG002
        """Make records at the server, past the destination; primary key to fields. Needed only by a destination that
        can update or delete and not create.

        Returns:
            Whether it was done; if not, the destination itself creates them.
        """
        return False

    def same(self, sent: Any, got: Any) -> bool:
        """Whether a field of a record has the value that was sent; `got` is None where it has none.

        By default texts must be equal, no value is an empty text, and numbers and others are compared by their meaning.
        """
        if sent in (None, "") or got in (None, ""):
            return sent in (None, "") and got in (None, "")
        if isinstance(sent, bool):
            return str(got).lower() == str(sent).lower()
        if isinstance(sent, int | float | Decimal):
            try:
                return Decimal(str(got)) == Decimal(str(sent))
            except InvalidOperation:
                return False
        return str(got) == str(sent)
