"""How a value may be written in a text that quotes it: escaped, cut off, in other case, with other separators."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "•••"
"""What stands for a value that is not told."""
SHORT = 4
"""Values below this length are replaced only where they stand alone, or they would take ordinary words apart."""
PREFIX = 16
"""Characters of a long value by which a quotation that was cut off is recognized."""
PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")
"""What looks the same everywhere."""


def leaves(value: Any) -> Iterator[Any]:
    """The texts, numbers and truth values in a JSON value; empty texts and nulls tell nothing."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner)
    elif isinstance(value, str):
        if value.strip():
            yield value
    elif value is not None:
        yield value


def secret_forms(secrets: Iterable[str]) -> tuple[set[str], set[str]]:
    """How secrets may be written: those found anywhere, and those found only where they stand alone."""
    forms: set[str] = set()
    alone: set[str] = set()
    for secret in secrets:
        (alone if len(secret) < SHORT else forms).update(_escapes(secret))
        forms.update(_in_base64(secret))
    return forms, alone


def _escapes(text: str) -> set[str]:
    """How a text looks in JSON, in JSON within JSON, in a URL, in HTML."""
    if PLAIN.fullmatch(text):
        return {text}
    forms = {text}
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        forms |= {once, once.replace("/", "\\/"), json.dumps(once)[1:-1]}
    forms |= {quote(text, safe=""), quote(text), quote_plus(text), html.escape(text), html.escape(text, quote=False)}
    return forms


def _in_base64(secret: str) -> set[str]:
    """What base64 makes of a secret within a longer text ("user:password"), wherever it starts."""
    raw = secret.encode()
    if len(raw) < SHORT + 2:
        return set()
    forms = set()
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        # The characters that also hold bits of what is before and behind differ from case to case.
        core = coded[(0, 2, 3)[before] : len(coded) - (1 if (before + len(raw)) % 3 else 0)]
        forms |= {core, core.replace("+", "-").replace("/", "_")}
    return forms


def quoted_in(values: Iterable[Any], response: bytes) -> Callable[[str], str] | None:
    """What replaces those of the values that an answer may quote; None if it quotes none.

    Both are compared by their letters and digits alone, which all ways of writing a value have in common.
    """
    core = _core(response.decode("utf-8", "replace"))
    found = frozenset(value for value in values if any(form in core for form in _cores(value)))
    return masker_of(found) if found else None


def _core(text: str) -> str:
    return _BESIDES.sub("", text.casefold())


_BESIDES = re.compile(r"[\W_]+")


def _cores(value: Any) -> Iterator[str]:
    text = str(value).strip()
    number = None if isinstance(value, bool) else _number(text)
    if number is not None:
        whole, _, rest = format(abs(number), "f").partition(".")
        yield (whole.lstrip("0") + rest).rstrip("0") or "0"
    for form in _escapes(text) | _escapes(str(value)):
        # The beginning finds a quotation that was cut off, too. A text of signs alone is looked for in any answer.
        yield _core(form[:PREFIX])


def masker_of(values: frozenset[Any]) -> Callable[[str], str]:
    """What replaces values in a text."""
    forms: set[str] = set()
    for value in values:
        forms.update(_forms(value))
    pattern = re.compile("|".join(sorted(forms, key=len, reverse=True)), re.IGNORECASE) if forms else None
    long = sorted({value.strip().casefold() for value in values if isinstance(value, str) and len(value) > PREFIX})

    def mask(text: str) -> str:
        if pattern is not None:
            text = pattern.sub(MASK, text)
        for value in long:
            text = _mask_beginning(text, value)
        return text

    return mask


def _forms(value: Any) -> Iterator[str]:
    """Patterns of the ways in which a value may be written."""
    if isinstance(value, bool):
        yield rf"(?<!\w){str(value).lower()}(?!\w)"
        return
    text = str(value).strip()
    if not text:
        return
    number = _number(text)
    if number is not None:
        yield _number_form(number)
    digits = [c for c in text if c.isdigit()]
    if len(digits) >= 6 and not any(c.isalpha() for c in text):
        # A phone or social security number, with other separators.
        yield r"(?<!\d)" + r"[\s().+/-]{0,3}".join(map(re.escape, digits)) + r"(?!\d)"
    for form in _escapes(text) | _escapes(str(value)):
        spaced = r"\s+".join(map(re.escape, form.split()))
        if spaced:
            yield rf"(?<!\w){spaced}(?!\w)" if len(text) < SHORT or number is not None else spaced


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 40 else None


def _number_form(number: Decimal) -> str:
    """A number with or without separators of thousands and zeros at its end."""
    whole, _, rest = format(abs(number), "f").partition(".")
    whole, rest = whole.lstrip("0") or "0", rest.rstrip("0")
    groups = []
    while whole:
        whole, group = whole[:-3], whole[-3:]
        groups.append(group)
    grouped = r"[,.' _]?".join(reversed(groups))
    fraction = rf"[.,]{rest}0*" if rest else r"(?:[.,]0+)?"
    return rf"(?<![\w.]){grouped}{fraction}(?![\w]|[.,]\d)"


def _mask_beginning(text: str, value: str) -> str:
    """Replace the beginning of a long value, where a quotation of it was cut off.

    Args:
        value: Trimmed and folded.
    """
    folded = text.casefold()
    if len(folded) != len(text):
        folded = text  # folding changed a length, so that positions no longer agree
    start = folded.find(value[:PREFIX])
    while start >= 0:
        end = start
        while end < len(text) and end - start < len(value) and folded[end] == value[end - start]:
            end += 1
        text = text[:start] + MASK + text[end:]
        folded = folded[:start] + MASK + folded[end:]
        start = folded.find(value[:PREFIX], start + len(MASK))
    return text
