"""Kind `soap`: an API that a WSDL describes (docs/destinations/soap.md)."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import yaml

from integrations_dagster.destinations.base import Batch, Flow, Request
from integrations_dagster.destinations.errors import Refused
from integrations_dagster.destinations.http.bodies import xml_text
from integrations_dagster.destinations.http.calls import Operation
from integrations_dagster.destinations.http.checks import object_of
from integrations_dagster.destinations.http.destination import Http, unaddressable
from integrations_dagster.destinations.http.templates import Unfit
from integrations_dagster.destinations.soap.forms import SoapApi, rows_in
from integrations_dagster.destinations.values import json_value
from integrations_dagster.keys import Keys
from integrations_dagster.vocabulary import Misconfigured, Mode, Outcome


class Soap(Http):
    """Any API that speaks SOAP 1.1 or 1.2, of style document/literal or rpc/literal.

    Args:
        option: What YAML says under `api`.
    """

    kind: ClassVar[str] = "soap"
    label: ClassVar[str] = "SOAP API"
    options: ClassVar[tuple[str, type[Keys]] | None] = ("api", SoapApi)
    carries_token: ClassVar[bool] = True

    def __init__(self, secrets: Mapping[str, str] | None = None, option: Any = None) -> None:
        super().__init__(secrets, option)
        # Registers how its forms are called; and needs what is imported with the first WSDL.
        from integrations_dagster.destinations.soap import calls

        self._calls = calls
        self._encode = xml_text(_with_binary)
        self.as_text = frozenset()  # type: ignore[misc]

    @classmethod
    def from_yaml(cls, text: str, label: str = "", read: Callable[[str], bytes] | None = None) -> Soap:
        """As of kind `http`.

        Args:
            read: Reads a file of the project, the WSDL among them, by its path there.
        """
        return cls(option=SoapApi.model_validate(yaml.safe_load(text), context={"destination": label, "read": read}))

    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:
        super().check(object_, mode, match, fields)
        api: SoapApi = self.option
        from integrations_dagster.destinations.soap import shapes

        for key, form in object_of(api, object_).operations.items():
            found = rows_in(api.described.operation(form.operation).type, form.body)  # type: ignore[attr-defined]
            if found is None or not form.sends_record:
                continue
            for name in fields:
                wrong = shapes.unknown_name(found[0].type, name.split(".")[0])
                if wrong:
                    raise Misconfigured(f"{self.label}: {object_}, `{key}`: {wrong}", "Correct the sync's `fields`.")

    def carry(self, request: Request, token: str) -> Request:
        """Put the session's token where the envelope has its mark."""
        from integrations_dagster.destinations.soap.wsdl import MARK

        escaped = token.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").encode()
        return dataclasses.replace(request, body=(request.body or b"").replace(MARK, escaped))

    def _send(self, operation: Operation, batch: Batch) -> Flow[list[Outcome]]:
        """One request for all rows of a batch that have the form that the WSDL says."""
        try:
            request = operation.made(batch)
        except Unfit as error:
            # Whose value it is, zeep does not say.
            unfit = operation.unfit(batch)  # type: ignore[attr-defined]
            if not unfit:
                reason = f"No request can be made of the rows: {error}"
                raise Refused(reason, "INVALID_REQUEST", remedy="Correct `body` of the operation.") from None
        else:
            response = yield request
            return self.read_answer(operation, batch, response)
        told = {place: unaddressable(why) for place, why in unfit.items()}
        rest = [place for place in range(len(batch.rows)) if place not in told]
        if rest:
            part = dataclasses.replace(batch, rows=tuple(batch.rows[place] for place in rest))
            told.update(zip(rest, (yield from self._send(operation, part)), strict=True))
        return [told[place] for place in range(len(batch.rows))]


def _with_binary(value: Any) -> Any:
    """JSON that keeps the value exact, and bytes as base64."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    return json_value(value)
