"""A model's query as tokens of its warehouse's dialect."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise

from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token, TokenType

from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.checks import ONE_SELECT, check_parameters

_STARTS = (TokenType.SELECT, TokenType.WITH, TokenType.VALUES, TokenType.TABLE, TokenType.L_PAREN)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A `$name` in the text of a query: its name, and where it begins and ends (characters, end excluded)."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A query that was looked at but not rewritten: the warehouse reads the text that the author wrote.

    Attributes:
        text: The query without the semicolon and what follows it.
        parameters: Its parameters, in order of the text.
    """

    text: str
    parameters: tuple[Parameter, ...]

    def with_parameters(self, replacements: Sequence[str]) -> str:
        """The text with an SQL expression in place of each of `parameters`; lines stay where they are."""
        text, last = "", 0
        for found, replacement in zip(self.parameters, replacements, strict=True):
            text += self.text[last : found.start] + replacement
            last = found.end
        return text + self.text[last:]


def one_select(sql: str, given: AbstractSet[str], source: str, dialect: str) -> Statement:
    """Look at a query's tokens: it is one statement that may stand in parentheses, and uses the parameters given.

    Only tokens are looked at, so that whatever the warehouse understands is let through, and its own parser judges.

    Args:
        given: Names of the parameters.
        dialect: sqlglot's name of the warehouse's dialect.

    Raises:
        Misconfigured: It is no single SELECT, or uses other parameters.
    """
    try:
        tokens = Dialect.get_or_raise(dialect).tokenize(sql)
    except TokenError as error:
        raise Misconfigured(f"The query in {source} cannot be parsed. {error}\n", "Correct the SQL.") from error
    statements = _split(tokens)
    if len(statements) != 1:
        raise Misconfigured(f"{source} holds {len(statements)} SQL statements.", ONE_SELECT)
    (statement,) = statements
    if statement[0].token_type not in _STARTS:
        raise Misconfigured(f"{source} holds a statement that is not a SELECT.", ONE_SELECT)
    # It is put in parentheses, and must not close them.
    depth = 0
    for token in statement:
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        if depth < 0:
            break
    if depth:
        raise Misconfigured(
            f"The query in {source} cannot be parsed: its parentheses do not match.", "Correct the SQL."
        )
    parameters = tuple(_parameters(statement))
    check_parameters({found.name for found in parameters}, given, source)
    return Statement(sql[: statement[-1].end + 1], parameters)


def _split(tokens: Sequence[Token]) -> list[list[Token]]:
    statements: list[list[Token]] = [[]]
    for token in tokens:
        if token.token_type is TokenType.SEMICOLON:
            statements.append([])
        else:
            statements[-1].append(token)
    return [statement for statement in statements if statement]


def _parameters(tokens: Sequence[Token]) -> list[Parameter]:
    return [
        Parameter(name.text, sign.start, name.end + 1)
        for sign, name in pairwise(tokens)
        if sign.token_type is TokenType.PARAMETER and sign.text == "$" and name.start == sign.end + 1
    ]
