"""Keeps secrets and sensitive values out of what is written: bodies of the request log, reasons of rows.

A *secret* lets somebody into an account; a *sensitive* value is one of a field that the sync marks so. Both become
`MASK`. Where it cannot be told what a text quotes, it is withheld rather than guessed.

Most bodies quote nothing, and where many batches have a rejected row all of them are kept: so each costly search is
behind a cheap one that rules it out.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from integrations_dagster.delivery.quotations import MASK, PLAIN, SHORT, leaves, masker_of, quoted_in, secret_forms
from integrations_dagster.vocabulary import Action, Row

WITHHELD = "(withheld: it may quote sensitive values, which cannot be told apart here)"
"""What stands for a body whose sensitive values are not known."""
KEY_LENGTH = 12
"""Characters from which a part of a URL's path may be a key rather than a word."""
KEPT_SECRETS = 64
"""Secrets that are remembered: an answer may quote a token that has been replaced since."""

_NAMES = (
    "authorization|proxy-authorization|(?:x-)?api[-_]?key|hapikey|(?:access|refresh|id|auth|bearer|csrf|session)[-_]?token"
    "|token|(?:client[-_]?|api[-_]?|signing[-_]?)?secret|password|passwd|pwd|private[-_]?key|(?:client[-_]?)?assertion"
    "|credentials?|session[-_]?id|(?:set-)?cookie|code[-_]?verifier|x-[a-z-]*signature[a-z0-9-]*"
)
_SECRET_NAME = re.compile(rf"(?:{_NAMES})\Z", re.IGNORECASE)
_STEMS = (
    *("authorization", "apikey", "api_key", "api-key", "token", "secret", "passw", "pwd", "privatekey", "private_key"),
    *("private-key", "assertion", "credential", "session", "cookie", "verifier", "signature"),
    *("basic", "bearer", "digest", "negotiate"),
)
"""One of these is in whatever `_NAMES` and `_IN_TEXT` find."""
_IN_TEXT = (
    re.compile(r"\b((?:Basic|Bearer|Digest|Negotiate)\s+)[A-Za-z0-9+/=_.~-]{4,}", re.IGNORECASE),
    re.compile(rf"""((?<!\w)(?:{_NAMES})\\?["']?\s*[:=]\s*\\?["']?)(?!•)[^\s"'\\,;&<>}}]+""", re.IGNORECASE),
)
_NAMED_BY = ("name", "property", "propertyName", "field", "fieldName", "key", "attribute", "column")
"""Names of what names a field in a body that lists fields as {"name": ..., "value": ...}."""


def scrub_reason(reason: str, rows: Sequence[Row], sensitive: frozenset[str]) -> str:
    """A reason without the sensitive values of a batch's rows: vendors quote what they refuse, and of whom they like.

    Args:
        reason: What the destination, or we, say of a row or of the batch.
        rows: Their payloads tell the values; where one has none, the reason is withheld.
        sensitive: Target fields that the sync marks as sensitive.
    """
    if not sensitive or not reason:
        return reason
    if any(row.encoded in (b"", b"{}") and row.action is not Action.DELETE for row in rows):
        # A batch that is taken up again may be known without what it sent.
        return WITHHELD
    return mask_values(reason, (value for row in rows for name, value in row.payload.items() if name in sensitive))


def mask_values(text: str, values: Iterable[Any]) -> str:
    """A text in which these values are replaced, however they are written: other case, trimmed, escaped, cut off.

    Args:
        text: Any text.
        values: JSON values; of lists and dicts, all that is in them.
    """
    found = frozenset(leaf for value in values for leaf in leaves(value))
    return masker_of(found)(text) if found and text else text


def url_secrets(url: str) -> tuple[str, ...]:
    """What of a base URL may let somebody in: user, password, path and query, whole and in parts.

    For URLs that come from the environment: those of many webhooks hold a key.
    """
    parts = urlsplit(url)
    found = [parts.username, parts.password, parts.query, *(value for _, value in parse_qsl(parts.query))]
    path = parts.path.strip("/")
    found += [path, *(segment for segment in path.split("/") if len(segment) >= KEY_LENGTH)]
    return tuple(dict.fromkeys(text for text in found if text and len(text) >= SHORT))


def mask_payload(payload: Mapping[str, Any], sensitive: frozenset[str]) -> dict[str, Any]:
    """A payload whose sensitive fields show nothing, for previews."""
    return {name: MASK if name in sensitive else value for name, value in payload.items()}


class Scrubber:
    """Makes bodies fit to be kept. Threads share one.

    Args:
        secrets: All secrets that requests may carry now; asked for each text, because tokens are replaced.
        sensitive: Fields whose values are not kept.
    """

    def __init__(self, secrets: Callable[[], tuple[str, ...]], sensitive: frozenset[str] = frozenset()) -> None:
        self._secrets = secrets
        self._sensitive = frozenset(name.casefold() for name in sensitive)
        self._lock = threading.Lock()
        self._known: tuple[str, ...] | None = None
        self._remembered: dict[str, None] = {}
        self._forms: tuple[str, ...] = ()
        self._pattern: re.Pattern[str] | None = None
        self._hidden_names: dict[str, bool] = {}

    @property
    def has_sensitive(self) -> bool:
        return bool(self._sensitive)

    def text(self, text: str) -> str:
        """A short text of ours or of a header, without secrets."""
        if not text:
            return text
        return self._without_secrets(text)

    def bodies(self, request: bytes, response: bytes, sent_before: bytes | None = None) -> tuple[str, str]:
        """A request's and its answer's body, without secrets and sensitive values.

        Args:
            request: The request's body; b"" if it had none.
            response: The answer's body.
            sent_before: The body that an earlier request of the same batch had, which this answer may quote (a job's
                result is asked for by a request without one); None where it is not known.
        """
        if not self._sensitive:
            return self._scrubbed(request, None), self._scrubbed(response, None)
        values: set[Any] = set()
        told = True
        for body in filter(None, (request, sent_before)):
            data = _json(body)
            if data is _NO_JSON:
                told = False
            else:
                values.update(self._sensitive_values(data))
        if not request and sent_before is None:
            told = False
        if not told:
            return WITHHELD if request else "", WITHHELD if response else ""
        # In the request they are known by their fields.
        return self._scrubbed(request, None), self._scrubbed(response, quoted_in(values, response))

    # Sensitive fields

    def _sensitive_values(self, data: Any) -> Iterator[Any]:
        """What a body says of sensitive fields, at whatever depth."""
        if isinstance(data, dict):
            named = self._names_sensitive(data)
            for name, value in data.items():
                if name.casefold() in self._sensitive or (named and name == "value"):
                    yield from leaves(value)
                else:
                    yield from self._sensitive_values(value)
        elif isinstance(data, list):
            for value in data:
                yield from self._sensitive_values(value)

    def _names_sensitive(self, data: dict[str, Any]) -> bool:
        """Whether a mapping is {"name": <sensitive field>, "value": ...}."""
        return "value" in data and any(
            isinstance(name := data.get(by), str) and name.casefold() in self._sensitive for by in _NAMED_BY
        )

    # Bodies

    def _scrubbed(self, body: bytes, masker: Callable[[str], str] | None) -> str:
        if not body:
            return ""
        text = body.decode("utf-8", "replace")
        if masker is None and self._without_secrets(text) is text and not self._names_something(text):
            return text
        data = _json(body)
        if data is _NO_JSON:
            return self._masked_text(text, masker)
        return json.dumps(self._masked(data, masker), ensure_ascii=False, separators=(",", ":"))

    def _names_something(self, text: str) -> bool:
        """Whether a body may have a name whose value is not told."""
        if _has_stem(text):
            return True
        folded = text.casefold() if self._sensitive else ""
        return any(PLAIN.fullmatch(name) is None or name in folded for name in self._sensitive)

    def _masked(self, data: Any, masker: Callable[[str], str] | None) -> Any:
        if isinstance(data, str):
            return self._masked_text(data, masker)
        if isinstance(data, dict):
            named = bool(self._sensitive) and self._names_sensitive(data)
            return {
                self._masked_text(name, masker): MASK
                if value is not None and (self._hidden(name) or (named and name == "value"))
                else self._masked(value, masker)
                for name, value in data.items()
            }
        if isinstance(data, list):
            return [self._masked(value, masker) for value in data]
        if isinstance(data, Decimal | int) and not isinstance(data, bool):
            text = str(data)
            if self._masked_text(text, masker) != text:
                return MASK
            return data if isinstance(data, int) else float(data)
        return data

    def _hidden(self, name: str) -> bool:
        """Whether the value of this name is not told; names are few, and come back in every row."""
        known = self._hidden_names.get(name)
        if known is None:
            known = name.casefold() in self._sensitive or _SECRET_NAME.match(name) is not None
            if len(self._hidden_names) < 10_000:
                self._hidden_names[name] = known
        return known

    def _masked_text(self, text: str, masker: Callable[[str], str] | None) -> str:
        text = self._without_secrets(text)
        if _has_stem(text):
            for form in _IN_TEXT:
                text = form.sub(rf"\1{MASK}", text)
        return masker(text) if masker else text

    # Secrets

    def _without_secrets(self, text: str) -> str:
        now = self._secrets()
        if now != self._known:
            self._learn(now)
        # Looking for each form is many times faster than the pattern of all.
        for form in self._forms:
            if form in text:
                pattern = self._pattern
                return pattern.sub(MASK, text) if pattern else text
        return text

    def _learn(self, now: tuple[str, ...]) -> None:
        with self._lock:
            for secret in filter(None, now):
                self._remembered.pop(secret, None)
                self._remembered[secret] = None
            for secret in list(self._remembered)[:-KEPT_SECRETS]:
                del self._remembered[secret]
            forms, alone = secret_forms(self._remembered)
            parts = [re.escape(form) for form in sorted(forms, key=len, reverse=True)]
            parts += [rf"(?<!\w){re.escape(form)}(?!\w)" for form in sorted(alone)]
            # In this order: who sees the forms sees the pattern too.
            self._pattern = re.compile("|".join(parts)) if parts else None
            self._forms = (*forms, *alone)
            self._known = now


_NO_JSON = object()


def _json(body: bytes) -> Any:
    """The body's JSON value, or `_NO_JSON`; numbers keep their digits, because a message quotes those."""
    try:
        data = json.loads(body, parse_float=Decimal, parse_constant=str)
    except (ValueError, RecursionError):
        return _NO_JSON
    return data if isinstance(data, dict | list | str) else _NO_JSON


def _has_stem(text: str) -> bool:
    lower = text.lower()
    return any(stem in lower for stem in _STEMS)
