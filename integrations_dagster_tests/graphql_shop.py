"""A small GraphQL API that exists for these tests alone, over real HTTP and with a real engine (graphql-core)."""

from __future__ import annotations

import itertools
from typing import Any

from graphql import GraphQLError, build_schema, execute_sync, parse, validate
from graphql.execution.values import get_variable_values
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from integrations_dagster_tests.http_apis import Api

SDL = """
enum Tier { FREE PAID }
scalar DateTime
input CustomerInput {
  email: String!, name: String, nick: String, tier: Tier = FREE, age: Int, tags: [String!], since: DateTime
}
type Customer { id: ID!, email: String!, name: String, plan: String! }
type Owner { id: ID!, login: String! }
type PageInfo { hasNextPage: Boolean!, endCursor: String }
type Owners { nodes: [Owner!]!, pageInfo: PageInfo! }
type Account { id: ID! }
type Query {
  account: Account!
  customers(emails: [String!]!): [Customer!]!
  owners(first: Int!, after: String): Owners!
  teams(limit: Int!, offset: Int!): [Owner!]!
}
type Mutation {
  saveCustomer(input: CustomerInput!): Customer
  saveStrictly(input: CustomerInput!): Customer!
  saveCustomers(inputs: [CustomerInput!]!): [Customer]!
  createCustomers(inputs: [CustomerInput!]!): [Customer!]!
  changeCustomer(id: ID!, input: CustomerInput!): Customer
  deleteCustomer(email: String!): ID
}
"""
SCHEMA = build_schema(SDL)


class Shop(Api):
    """Customers with an email.

    Attributes:
        customers: By id.
        operations: The text of every document that was run.
    """

    TOKEN = "shop-token-19c4"

    def __init__(self, owners: int = 7) -> None:
        super().__init__()
        self.customers: dict[str, dict[str, Any]] = {}
        self.operations: list[str] = []
        self.owner_list = [{"id": f"o{place}", "login": f"owner {place}"} for place in range(owners)]
        self._ids = itertools.count(1)

    def by_email(self) -> dict[str, dict[str, Any]]:
        return {customer["email"]: customer for customer in self.customers.values()}

    def allowed(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {self.TOKEN}"

    def serve(self, _request: Request, body: Any) -> Response:
        self.operations.append(body["query"])
        document = parse(body["query"])
        errors = validate(SCHEMA, document)
        if errors:
            told = [{**error.formatted, "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"}} for error in errors]
            return JSONResponse({"errors": told}, 400)
        operation: Any = document.definitions[0]
        unfit = get_variable_values(SCHEMA, operation.variable_definitions, body.get("variables") or {})
        if isinstance(unfit, list):
            # As Apollo does: a request error, before anything is done.
            told = [{**error.formatted, "extensions": {"code": "BAD_USER_INPUT"}} for error in unfit]
            return JSONResponse({"errors": told}, 400)
        result = execute_sync(SCHEMA, document, root_value=self._root(), variable_values=body.get("variables"))
        return JSONResponse(result.formatted)

    def _root(self) -> dict[str, Any]:
        return {
            "account": {"id": "shop-1"},
            "customers": lambda _info, emails: [self.by_email()[email] for email in emails if email in self.by_email()],
            "owners": self._owners,
            "teams": lambda _info, limit, offset: self.owner_list[offset : offset + limit],
            "saveCustomer": lambda _info, input: self._save(input),
            "saveStrictly": lambda _info, input: self._save(input),
            "saveCustomers": self._save_all,
            "createCustomers": self._create_all,
            "changeCustomer": self._change,
            "deleteCustomer": self._delete,
        }

    def _owners(self, _info: Any, first: int, after: str | None = None) -> dict[str, Any]:
        start = int(after or 0)
        end = start + first
        more = end < len(self.owner_list)
        return {
            "nodes": self.owner_list[start:end],
            "pageInfo": {"hasNextPage": more, "endCursor": str(end)},
        }

    def _save(self, given: dict[str, Any]) -> dict[str, Any]:
        _refuse_bad(given)
        known = self.by_email().get(given["email"])
        if known is None:
            known = {"id": f"c{next(self._ids)}", "plan": "basic"}
            self.customers[known["id"]] = known
        known |= given
        # Its plan may not be null: reading it fails, after the record was written.
        return {**known, "plan": None} if given.get("name") == "no plan" else known

    def _save_all(self, _info: Any, inputs: list[dict[str, Any]]) -> list[Any]:
        def one(given: dict[str, Any]) -> Any:
            try:
                return self._save(given)
            except GraphQLError as error:
                return error

        return [one(given) for given in inputs]

    def _create_all(self, _info: Any, inputs: list[dict[str, Any]]) -> list[Any]:
        """All of them, or none."""
        for given in inputs:
            _refuse_bad(given)
        return [self._save(given) for given in inputs]

    def _change(self, _info: Any, id: str, input: dict[str, Any]) -> dict[str, Any]:
        if id not in self.customers:
            raise GraphQLError("There is no such customer.", extensions={"code": "NOT_FOUND"})
        _refuse_bad(input)
        self.customers[id] |= input
        return self.customers[id]

    def _delete(self, _info: Any, email: str) -> str | None:
        known = self.by_email().get(email)
        return None if known is None else self.customers.pop(known["id"])["id"]

    def app(self) -> Starlette:
        async def answer(request: Request) -> Response:
            return await self.guarded(request, self.serve)

        return Starlette(routes=[Route("/api/graphql", answer, methods=["POST"])])


def _refuse_bad(given: dict[str, Any]) -> None:
    if str(given.get("name", "")).startswith("bad"):
        raise GraphQLError(f"{given['name']!r} is no name.", extensions={"code": "BAD_NAME"})
