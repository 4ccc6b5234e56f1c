"""JMESPath expressions (jmespath.org): where in a JSON document a value is. Compiled once, checked when YAML is read.

An expression is kept as its text; `find` compiles it at its first use. A destination that is written in Python checks
its own expressions with `expression` in a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.parser import ParsedResult
from pydantic import BeforeValidator

from integrations_dagster.keys import near, problem

EXAMPLE = 'as "data.results" (jmespath.org)'


@cache
def _compiled(text: str) -> ParsedResult:
    return jmespath.compile(text)


@cache
def _members(text: str) -> tuple[str, ...] | None:
    """The names of an expression that is made of names alone ("error.code"), or None."""
    names: list[str] = []
    nodes = [_compiled(text).parsed]
    while nodes:
        node = nodes.pop()
        if node["type"] == "subexpression":
            nodes += reversed(node["children"])
        elif node["type"] == "field":
            names.append(node["value"])
        else:
            return None
    return tuple(names)


def find(text: str, document: Any) -> Any:
    """What an expression finds in a document; None where there is nothing.

    Raises:
        ValueError: The document has another shape than a function of the expression can take.
    """
    try:
        names = _members(text)
        if names is None:
            return _compiled(text).search(document)
        # Most expressions are names, asked of every row; the library's own walk takes ten times as long.
        for name in names:
            if type(document) is not dict:
                return None
            document = document.get(name)
        return document
    except (JMESPathError, TypeError, RecursionError) as error:
        raise ValueError(f"{text} cannot be applied ({type(error).__name__}).") from None


def probe(text: str, document: Any) -> Any:
    """`find`, and None where the document has another shape than the expression can take."""
    try:
        return find(text, document)
    except ValueError:
        return None


def expression(value: Any) -> str:
    """Check an expression that YAML gives.

    Raises:
        PydanticCustomError: What is wrong with it.
    """
    if not isinstance(value, str) or not value.strip():
        raise problem(f"takes a JMESPath expression, {EXAMPLE}")
    try:
        parsed = _compiled(value).parsed
    except JMESPathError as error:
        first = str(error).splitlines()[0].rstrip(":.")
        quoted = ' Put a name with other characters than letters, digits and "_" in double quotes: \'"a-b".c\'.'
        raise problem(f'"{value}" is no JMESPath expression: {first}.{quoted if "-" in value else ""}') from None
    for name in _functions(parsed):
        if name not in Functions.FUNCTION_TABLE:
            raise problem(
                f'"{value}": JMESPath has no function "{name}". {near(name, Functions.FUNCTION_TABLE)}'
                f"Known: {', '.join(sorted(Functions.FUNCTION_TABLE))}."
            )
    return value


def _functions(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if node.get("type") == "function_expression":
            yield str(node["value"])
        for child in node.get("children", ()):
            yield from _functions(child)


Expression = Annotated[str, BeforeValidator(expression)]
"""A JMESPath expression as a key of a `Keys` form."""


def as_text(value: Any) -> str:
    """A value of an answer as text: a text as it is, a number in digits; "" for anything else, booleans among it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return str(int(value)) if isinstance(value, int) or value.is_integer() else repr(value)
