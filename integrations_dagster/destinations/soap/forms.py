"""What `api:` says in YAML of an API that a WSDL describes.

The forms are those of kind `http`, with an operation of the WSDL in place of a method, a path and an encoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, PrivateAttr, ValidationInfo, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from integrations_dagster.destinations.http.form_parts import RequestLine, checked
from integrations_dagster.destinations.http.forms import HttpApi, ObjectKeys, OperationKeys
from integrations_dagster.destinations.http.reading_forms import (
    FieldKeys,
    FieldsKeys,
    IdentifyKeys,
    NextKeys,
    ReadKeys,
    ReferenceKeys,
    SearchKeys,
    read_fields_form,
)
from integrations_dagster.destinations.http.templates import PLACEHOLDER, SPREAD, Unfit, placeholders
from integrations_dagster.keys import Keys, mistake, problem

if TYPE_CHECKING:
    from integrations_dagster.destinations.soap.wsdl import Wsdl, WsdlOperation


class Narrowed(Keys):
    """A form of kind `http` without the keys that SOAP has no use for."""

    hidden: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def keys(cls) -> list[str]:
        known = super().keys()
        return [name for name in known if name not in cls.hidden]

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        own = handler.resolve_ref_schema(schema)
        for name in cls.hidden:
            own.get("properties", {}).pop(name, None)
        return schema


Operation = Annotated[str, Field(min_length=1, description="Name of the operation in the WSDL.")]
_HTTP = frozenset({"request", "query", "headers"})


class SoapOperationKeys(Narrowed, OperationKeys):
    """One operation that writes."""

    hidden: ClassVar[frozenset[str]] = _HTTP | {"encoding", "statuses", "idempotency_header", "job", "ok"}

    request: RequestLine = "POST"
    operation: Operation
    body: Any = Field(description="Its arguments: the elements of the message, by name, with placeholders.")
    nulls: str | None = Field(
        default=None,
        description="Element of the item that takes the names of fields that are to be emptied; default: they are sent "
        "as nil.",
    )


class SoapNextKeys(Narrowed, NextKeys):
    """How the next page of a list is asked for."""

    hidden: ClassVar[frozenset[str]] = frozenset({"url", "link", "param"})

    operation: Operation | None = Field(default=None, description="Operation of further pages; default: the same.")
    body: Any = Field(default=None, description="Its arguments, with {cursor}, {page} or {offset}.")

    @model_validator(mode="after")
    def _both(self) -> SoapNextKeys:
        if (self.operation is None) != (self.body is None):
            raise mistake(("operation",), "and `body` belong together: give both, or neither.")
        return self


class SoapReadKeys(Narrowed, ReadKeys):
    """An operation that changes nothing, and the records that it answers, page by page."""

    hidden: ClassVar[frozenset[str]] = _HTTP

    request: RequestLine = "POST"
    operation: Operation
    body: Any = Field(default_factory=dict, description="Its arguments, with placeholders.")
    next: SoapNextKeys | None = Field(default=None, description="How the next page is asked for; default: one page.")

    @model_validator(mode="after")
    def _fits(self) -> SoapReadKeys:
        checked(("body",), self.body, self.allowed)
        if self.next is not None:
            checked(("next", "body"), self.next.body, self.allowed)
            names = {name for name, _ in placeholders([self.body, self.next.body])}
            if self.next.way not in names:
                raise mistake(("next",), f"does not say how {self.next.way} is sent: write {{{self.next.way}}}.")
        return self


class SoapSearchKeys(SoapReadKeys, SearchKeys):
    """How records are found by match value or key."""

    @model_validator(mode="after")
    def _whole_values(self) -> SoapSearchKeys:
        # Of a query language nothing is known here, its way of quoting least of all.
        for text in _texts(self.body):
            names = {name for name, _ in placeholders(text)} & {"match", "key", "matches", "keys"}
            if names and not PLACEHOLDER.fullmatch(text):
                raise mistake(
                    ("body",),
                    f"has {{{sorted(names)[0]}}} within a longer text, where a value could change what is asked. Give "
                    "the placeholder an element of its own.",
                )
        return self


class SoapReferenceKeys(SoapReadKeys, ReferenceKeys):
    """Reference data that lookups find values in."""


class SoapFieldsKeys(SoapReadKeys, FieldsKeys):
    """Where the API says which fields an object has."""


class SoapIdentifyKeys(Narrowed, IdentifyKeys):
    """Who the account is: state is kept for each."""

    hidden: ClassVar[frozenset[str]] = _HTTP

    request: RequestLine = "POST"
    operation: Operation
    body: Any = Field(default_factory=dict, description="Its arguments.")

    @model_validator(mode="after")
    def _reads(self) -> SoapIdentifyKeys:
        checked(("body",), self.body, ())
        return self


def _fields(value: Any) -> Any:
    if isinstance(value, Mapping) and "operation" in value:
        return SoapFieldsKeys.model_validate(value)
    if isinstance(value, Mapping) and "request" in value:
        raise problem("asks with a `request`, which is of kind http. Write the `operation` that describes the object.")
    return value if value is None else read_fields_form(value)


class SoapObjectKeys(ObjectKeys):
    """One object of the API."""

    create: SoapOperationKeys | None = Field(default=None, description="Makes records.")
    update: SoapOperationKeys | None = Field(default=None, description="Changes records that are there.")
    modify: SoapOperationKeys | None = Field(
        default=None, description="The same by match value, for mode update, where `update` takes {id}."
    )
    upsert: SoapOperationKeys | None = Field(default=None, description="Makes or changes records.")
    delete: SoapOperationKeys | None = Field(default=None, description="Deletes records.")
    search: SoapSearchKeys | None = Field(default=None, description="Finds records by match value or key.")
    fields: Annotated[Any, BeforeValidator(_fields)] = Field(
        default=None,
        description="The fields that it has: by name, or an operation that tells them; default: what the WSDL says of "
        "the rows' element.",
    )


def _headers(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise problem("takes the content of SOAP headers by name, as {SessionHeader: {sessionId: '{session}'}}")
    return value


class SoapApi(Narrowed, HttpApi):
    """An API that a WSDL describes."""

    hidden: ClassVar[frozenset[str]] = frozenset({"encoding", "idempotency_header", "ok"})

    wsdl: str = Field(min_length=1, description="Path of the WSDL in the project.")
    service: str = Field(default="", description="Name of its service; default: the only or first one.")
    port: str = Field(default="", description="Name of the service's port; default: the first that speaks SOAP.")
    path: str = Field(default="", pattern=r"^(/\S*)?$", description="Path of the endpoint below base_url.")
    soap_headers: Annotated[dict[str, Any], BeforeValidator(_headers)] = Field(
        default_factory=dict,
        description="SOAP headers by name, sent with each operation that declares them; {session} is the session's "
        "token.",
    )
    objects: dict[str, SoapObjectKeys] = Field(min_length=1, description="Its objects, by name.")  # type: ignore[assignment]
    references: dict[str, SoapReferenceKeys] = Field(default_factory=dict, description="Reference data for lookups.")  # type: ignore[assignment]
    identify: SoapIdentifyKeys | None = Field(default=None, description="How the account says who it is.")

    _wsdl: Any = PrivateAttr(default=None)

    @property
    def described(self) -> Wsdl:
        """The WSDL."""
        made: Wsdl = self._wsdl
        return made

    @model_validator(mode="after")
    def _is_described(self, info: ValidationInfo) -> SoapApi:
        # It costs most of a second, which only those pay who have such a destination.
        from integrations_dagster.destinations.soap.wsdl import Wsdl

        read = (info.context or {}).get("read")
        if read is None:
            raise mistake(("wsdl",), "can be read only as part of a project.")
        try:
            self._wsdl = Wsdl(self.wsdl, read, self.service, self.port)
        except OSError as error:
            fetched = " Nothing is fetched: put it there." if "://" in self.wsdl else ""
            text = f'"{self.wsdl}" is no file of the project ({error.strerror or error}).{fetched}'
            raise mistake(("wsdl",), text) from None
        except ValueError as error:
            raise mistake(("wsdl",), f'"{self.wsdl}" {error}') from None
        for name, object_ in self.objects.items():
            for key, operation in object_.operations.items():
                assert isinstance(operation, SoapOperationKeys)
                self._check_writing(("objects", name, key), object_, operation)
            for key in ("search", "fields"):
                form = getattr(object_, key)
                if isinstance(form, SoapReadKeys):
                    self._check_reading(("objects", name, key), form)
        for name, reference in self.references.items():
            self._check_reading(("references", name), reference)
        if self.identify is not None:
            self._check_arguments(("identify",), self.identify.operation, self.identify.body)
        return self

    def _check_writing(self, path: Sequence[str], object_: SoapObjectKeys, form: SoapOperationKeys) -> None:
        from integrations_dagster.destinations.soap import shapes

        operation = self._check_arguments(path, form.operation, form.body)
        found = rows_in(operation.type, form.body)
        if found is None:
            if form.nulls is not None:
                raise mistake((*path, "nulls"), "belongs to an item, and `body` has no {rows} alone in an element.")
            return
        element, multiple = found
        if form.rows > 1 and not multiple:
            raise mistake((*path, "rows"), f"is {form.rows}, and the WSDL allows one element {element.name!r} only.")
        if isinstance(element.max_occurs, int) and form.rows > element.max_occurs:
            raise mistake(
                (*path, "rows"), f"is {form.rows}, and the WSDL allows {element.max_occurs} elements {element.name!r}."
            )
        row = element.type
        self._check_names((*path, "item"), row, form.item)
        if form.nulls is not None:
            self._check_names((*path, "nulls"), row, {form.nulls: ""})
        if object_.fields is None and shapes.takes_any(row) is None and shapes.members(row):
            object_.fields = fields_of(row, [one.item for one in object_.operations.values()])

    def _check_reading(self, path: Sequence[str], form: SoapReadKeys) -> None:
        self._check_arguments(path, form.operation, form.body)
        if form.next is not None and form.next.operation is not None:
            self._check_arguments((*path, "next"), form.next.operation, form.next.body)

    def _check_arguments(self, path: Sequence[str], name: str, body: Any) -> WsdlOperation:
        try:
            operation = self.described.operation(name)
        except ValueError as error:
            raise mistake((*path, "operation"), str(error)) from None
        self._check_names((*path, "body"), operation.type, body)
        try:
            strange = operation.set_headers(self.soap_headers)
        except Unfit as error:
            raise mistake(("soap_headers",), f"are not what the WSDL says: {error}") from None
        if strange:
            raise mistake(
                ("soap_headers", strange[0]), f"is no header of {name}, nor an element of the WSDL's schemas."
            )
        return operation

    def _check_names(self, path: Sequence[str], type_: Any, node: Any) -> None:
        """Whether a structure has elements of a type only."""
        from integrations_dagster.destinations.soap import shapes

        if not isinstance(node, Mapping):
            if path[-1] == "body":
                raise mistake(path, "takes the operation's arguments by name.")
            return
        known = shapes.members(type_)
        for name, value in node.items():
            if name == SPREAD:
                continue
            wrong = shapes.unknown_name(type_, str(name))
            if wrong:
                raise mistake((*path, str(name)), wrong.partition(" ")[2])
            if name in known and isinstance(value, Mapping):
                self._check_names((*path, str(name)), known[name].type, value)


def rows_in(type_: Any, node: Any) -> tuple[Any, bool] | None:
    """The element that takes the rows, or the row, of a body, and whether there may be several of it; None where none
    does alone."""
    from integrations_dagster.destinations.soap import shapes

    known = shapes.members(type_)
    for name, value in node.items() if isinstance(node, Mapping) else ():
        element = known.get(name)
        if element is None:
            continue
        if value in ("{rows}", "{record}") or (isinstance(value, Mapping) and value.get(SPREAD) == "{record}"):
            return element, element.accepts_multiple
        inner = rows_in(element.type, value)
        if inner is not None:
            return inner
    return None


def fields_of(type_: Any, items: Sequence[Any]) -> dict[str, FieldKeys]:
    """The fields that a row may have, as its element's type says: those that no operation gives a value of its own."""
    from integrations_dagster.destinations.soap import shapes

    taken = {str(name) for item in items if isinstance(item, Mapping) for name in item}
    made = {}
    for name, element in shapes.members(type_).items():
        if name in taken:
            continue
        word = next((word for kind, word in shapes.FIELD_TYPES if isinstance(element.type, kind)), "unknown")
        made[name] = FieldKeys(type=word, required=not element.is_optional and not element.nillable)  # type: ignore[arg-type]
    return made


def _texts(node: Any) -> list[str]:
    if isinstance(node, Mapping):
        return [text for value in node.values() for text in _texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in _texts(value)]
    return [node] if isinstance(node, str) else []
