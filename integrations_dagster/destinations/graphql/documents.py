"""GraphQL documents that YAML gives: read by a real parser, checked, and made one request about several rows.

graphql-core is imported where it is used: it takes a tenth of a second, which no other kind of destination should pay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from integrations_dagster.destinations.http.templates import PLACEHOLDER
from integrations_dagster.keys import near

if TYPE_CHECKING:
    from graphql.language import DocumentNode, FieldNode, Node, OperationDefinitionNode, VariableDefinitionNode

Operation: TypeAlias = Literal["mutation", "query"]
ALIAS = "r"
"""Begins the alias of a row; its place in the request follows."""
KEPT = 16
"""Texts for several rows that are kept: batches of one sync have few different sizes."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that a document declares.

    Attributes:
        type: As it is written ("[customer_input!]!").
        named: The type without lists and exclamation marks ("customer_input").
        needed: Whether a request without it is refused.
    """

    type: str
    named: str
    needed: bool


@dataclass(frozen=True)
class Document:
    """One operation with one top-level field.

    Attributes:
        text: The document, in the form that is sent.
        key: Of its result in `data`: the name of the field, or its alias.
        variables: Those that it declares.
    """

    text: str
    key: str
    variables: Mapping[str, Variable]
    _node: DocumentNode
    _several: dict[int, str] = field(default_factory=dict)

    def for_rows(self, count: int) -> str:
        """The operation once for each row in one document: its field under the aliases r0, r1, ..., each with variables
        of its own, which begin with the alias ("r0_id")."""
        text = self._several.get(count)
        if text is None:
            if len(self._several) >= KEPT:
                self._several.clear()
            text = self._several[count] = _several(self._node, self._operation, count)
        return text

    @cached_property
    def _operation(self) -> OperationDefinitionNode:
        return _operations(self._node)[0]


def alias(place: int) -> str:
    """The alias of the row at a place of a request."""
    return f"{ALIAS}{place}"


def read_document(text: Any, operation: Operation, *, several: bool = False) -> Document:
    """Read a document that YAML gives.

    Args:
        operation: What it must be.
        several: Whether it is to be sent for several rows at once.

    Raises:
        ValueError: What is wrong with it, and where.
    """
    from graphql.error import GraphQLSyntaxError
    from graphql.language import parse, print_ast

    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"takes a {operation} of GraphQL")
    try:
        node = parse(text)
    except (GraphQLSyntaxError, RecursionError) as error:
        place = getattr(error, "locations", None)
        where = f" (line {place[0].line}, column {place[0].column})" if place else ""
        reason = getattr(error, "message", "It is nested too deeply").removeprefix("Syntax Error: ")
        raise ValueError(f"is no GraphQL{where}: {reason}") from None
    found = _operations(node)
    if len(found) != 1 or found[0].operation.value != operation:
        what = ", ".join(one.operation.value for one in found) or "none"
        raise ValueError(f"takes one {operation}, and has: {what}. Write {operation} (...) {{ ... }}.")
    field_ = _only_field(found[0], operation)
    variables = {one.variable.name.value: _variable(one) for one in found[0].variable_definitions}
    _check_variables(node, found[0], variables, several=several)
    _check_texts(node)
    return Document(print_ast(node), (field_.alias or field_.name).value, variables, node)


def check_values(document: Document, values: Mapping[str, Any]) -> None:
    """Refuse values of variables that do not go with a document.

    Raises:
        ValueError: Naming the variable.
    """
    for name in values:
        if name not in document.variables:
            known = ", ".join(f"${one}" for one in document.variables) or "none"
            raise ValueError(
                f"has {name!r}, which the document does not declare. {near(name, document.variables)}"
                f"It declares: {known}."
            )
    for name, variable in document.variables.items():
        if variable.needed and name not in values:
            raise ValueError(f"lacks {name!r}, which the document declares as ${name}: {variable.type}")


def _operations(node: DocumentNode) -> list[OperationDefinitionNode]:
    from graphql.language import OperationDefinitionNode

    return [one for one in node.definitions if isinstance(one, OperationDefinitionNode)]


def _only_field(operation: OperationDefinitionNode, word: str) -> FieldNode:
    from graphql.language import FieldNode

    fields = operation.selection_set.selections
    if len(fields) != 1 or not isinstance(fields[0], FieldNode):
        raise ValueError(
            f"takes a {word} with one field at its top, for what is said of answers is said of that field. It has "
            f"{len(fields)}."
            if len(fields) != 1
            else f"takes a {word} with a field at its top, and has a fragment there. Write out the field."
        )
    return fields[0]


def _variable(node: VariableDefinitionNode) -> Variable:
    from graphql.language import ListTypeNode, NamedTypeNode, NonNullTypeNode, print_ast

    named: Any = node.type
    while isinstance(named, NonNullTypeNode | ListTypeNode):
        named = named.type
    assert isinstance(named, NamedTypeNode)
    needed = isinstance(node.type, NonNullTypeNode) and node.default_value is None
    return Variable(print_ast(node.type), named.name.value, needed)


def _nodes(node: Node) -> Iterator[Node]:
    from graphql.language import Node

    yield node
    for key in node.keys:
        value = getattr(node, key, None)
        for child in value if isinstance(value, list | tuple) else (value,):
            if isinstance(child, Node):
                yield from _nodes(child)


def _check_variables(
    document: DocumentNode, operation: OperationDefinitionNode, known: Mapping[str, Variable], *, several: bool
) -> None:
    from graphql.language import FragmentDefinitionNode, FragmentSpreadNode, VariableNode

    fragments = [one for one in document.definitions if isinstance(one, FragmentDefinitionNode)]
    names = [one.name.value for one in fragments]
    for node in _nodes(document):
        if isinstance(node, VariableNode) and node.name.value not in known:
            hint = near(node.name.value, known)
            raise ValueError(f"uses ${node.name.value} ({_where(node)}), which it does not declare. {hint}".strip())
        if isinstance(node, FragmentSpreadNode) and node.name.value not in names:
            raise ValueError(f"uses the fragment {node.name.value} ({_where(node)}), which it does not have")
    used = {node.name.value for node in _nodes(operation.selection_set) if isinstance(node, VariableNode)}
    in_fragments = {
        node.name.value for fragment in fragments for node in _nodes(fragment) if isinstance(node, VariableNode)
    }
    unused = sorted(known.keys() - used - in_fragments)
    if unused:
        raise ValueError(f"declares ${unused[0]} and does not use it")
    if several and in_fragments:
        raise ValueError(
            f"uses ${sorted(in_fragments)[0]} in a fragment, which the rows of a request would share. Write the "
            "fragment's fields out."
        )


def _check_texts(document: DocumentNode) -> None:
    from graphql.language import StringValueNode

    for node in _nodes(document):
        if isinstance(node, StringValueNode) and (found := PLACEHOLDER.search(node.value)):
            raise ValueError(
                f"has {found[0]} in a text ({_where(node)}). Values travel as variables: declare one, and give it the "
                "value in `variables`."
            )


def _where(node: Node) -> str:
    if node.loc is None:
        return "somewhere"
    place = node.loc.source.get_location(node.loc.start)
    return f"line {place.line}, column {place.column}"


def _several(document: DocumentNode, operation: OperationDefinitionNode, count: int) -> str:
    from graphql.language import (
        FragmentDefinitionNode,
        NameNode,
        OperationDefinitionNode,
        SelectionSetNode,
        VariableNode,
        Visitor,
        print_ast,
        visit,
    )

    class Renaming(Visitor):
        def __init__(self, prefix: str) -> None:
            super().__init__()
            self.prefix = prefix

        def enter_variable(self, node: VariableNode, *_: Any) -> VariableNode:
            return VariableNode(name=NameNode(value=f"{self.prefix}_{node.name.value}"))

    definitions: list[Any] = []
    fields: list[Any] = []
    (only,) = operation.selection_set.selections
    for place in range(count):
        renaming = Renaming(alias(place))
        definitions += [visit(one, renaming) for one in operation.variable_definitions]
        renamed = visit(only, renaming)
        renamed = renamed if renamed is not only else only.__copy__()
        renamed.alias = NameNode(value=alias(place))
        fields.append(renamed)
    whole = OperationDefinitionNode(
        operation=operation.operation,
        name=operation.name,
        variable_definitions=tuple(definitions),
        directives=operation.directives,
        selection_set=SelectionSetNode(selections=tuple(fields)),
    )
    rest = [one for one in document.definitions if isinstance(one, FragmentDefinitionNode)]
    return "\n\n".join(print_ast(one) for one in (whole, *rest))
