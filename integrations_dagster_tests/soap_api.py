"""A registry of members that speaks SOAP 1.1 and 1.2, for tests alone, over real HTTP; and YAML that describes it."""

from __future__ import annotations

import itertools
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from xml.sax.saxutils import escape

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from integrations_dagster.destinations.soap.destination import Soap

FOLDER = Path(__file__).parent / "wsdl"
SPACES = {"1.1": "http://schemas.xmlsoap.org/soap/envelope/", "1.2": "http://www.w3.org/2003/05/soap-envelope"}
T = "{urn:registry}"
M = "{urn:registry:members}"
XSI = "{http://www.w3.org/2001/XMLSchema-instance}"
USER, PASSWORD = "loader", "pass <&> word"
LOGIN = """
<e:Envelope xmlns:e="{space}"><e:Body>
  <login xmlns="urn:registry"><user>{{username}}</user><word>{{password}}</word></login>
</e:Body></e:Envelope>
"""
API = """
wsdl: registry.wsdl
port: Registry11
path: /registry
soap_headers: {Session: {token: "{session}"}}
atomic: true
errors: {NO_SESSION: unauthorized, BUSY: throttled, GONE: missing}
objects:
  members:
    match: {email: trim_lower}
    upsert:
      operation: saveMembers
      rows: 50
      body: {source: "{sync}", member: "{rows}"}
      answer: {results: outcome, success: ok, id: memberId, created: isNew, code: problem.code, message: problem.text}
    update:
      operation: saveMembers
      rows: 50
      body: {source: "{sync}", member: "{rows}"}
      item: {memberId: "{id}", "...": "{record}"}
      answer: {results: outcome, success: ok, id: memberId, code: problem.code, message: problem.text}
    delete:
      operation: dropMembers
      rows: 50
      body: {memberId: "{ids}"}
      answer: {results: outcome, success: ok, id: memberId, code: problem.code, message: problem.text}
    search:
      operation: findMembers
      rows: 50
      body: {email: "{matches}"}
      records: found
      by: {match: email}
      id: memberId
"""


def read(path: str) -> bytes:
    """A file beside the WSDL."""
    return (FOLDER / path).read_bytes()


def soap(text: str = API) -> Soap:
    """The destination that YAML describes."""
    return Soap.from_yaml(text, "Registry", read)


def envelope(content: str, version: str = "1.1") -> bytes:
    """An envelope around the element of an answer."""
    space = f'xmlns:e="{SPACES[version]}" xmlns:xsi="{XSI[1:-1]}"'
    return f'<?xml version="1.0"?><e:Envelope {space}><e:Body>{content}</e:Body></e:Envelope>'.encode()


def outcome(id_: str | None, *, new: bool = False, code: str = "", text: str = "") -> str:
    """What an answer says of one row."""
    if code:
        told = f"<problem><code>{code}</code><text>{escape(text)}</text></problem>"
        return f'<outcome><ok>false</ok><memberId xsi:nil="true"/>{told}</outcome>'
    return f"<outcome><ok>true</ok><isNew>{str(new).lower()}</isNew><memberId>{id_}</memberId></outcome>"


def saved(*outcomes: str, operation: str = "saveMembers", version: str = "1.1") -> bytes:
    """The answer to saveMembers or dropMembers."""
    return envelope(f'<{operation}Response xmlns="urn:registry">{"".join(outcomes)}</{operation}Response>', version)


def fault(code: str, text: str, version: str = "1.1", detail: str = "") -> bytes:
    """A fault; in SOAP 1.2 the code is the subcode of Sender."""
    if version == "1.1":
        inner = f"<detail>{detail}</detail>" if detail else ""
        return envelope(
            f"<e:Fault><faultcode>x:{code}</faultcode><faultstring>{escape(text)}</faultstring>{inner}</e:Fault>"
        )
    inner = f"<e:Detail>{detail}</e:Detail>" if detail else ""
    codes = f"<e:Code><e:Value>e:Sender</e:Value><e:Subcode><e:Value>x:{code}</e:Value></e:Subcode></e:Code>"
    if code in ("Receiver", "Sender", "MustUnderstand", "VersionMismatch"):
        codes = f"<e:Code><e:Value>e:{code}</e:Value></e:Code>"
    reason = f'<e:Reason><e:Text xml:lang="en">{escape(text)}</e:Text></e:Reason>'
    return envelope(f"<e:Fault>{codes}{reason}{inner}</e:Fault>", version)


class Registry:
    """The server.

    Attributes:
        members: Element name to text, by id; None for an element that is nil.
        faults: Answers to the next requests that change something, instead of doing it.
        lost: How many further requests take effect and are answered with an outage.
        asked: Name of the operation of each request, and its content type and SOAPAction.
    """

    def __init__(self) -> None:
        self.members: dict[str, dict[str, str | None]] = {}
        self.faults: list[Response] = []
        self.lost = 0
        self.asked: list[tuple[str, str, str]] = []
        self.logins = 0
        self.session = ""
        self.lock = threading.Lock()
        self._ids = itertools.count(1)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/registry", self.serve, methods=["POST"])])

    def by_email(self) -> dict[str, dict[str, str | None]]:
        return {str(member["email"]): member for member in self.members.values()}

    async def serve(self, request: Request) -> Response:
        root = ET.fromstring(await request.body())
        version = next(name for name, space in SPACES.items() if root.tag == f"{{{space}}}Envelope")
        body = root.find(f"{{{SPACES[version]}}}Body")
        assert body is not None
        call = body[0]
        name = call.tag.rpartition("}")[2]
        kind = "application/soap+xml" if version == "1.2" else "text/xml"
        with self.lock:
            self.asked.append((name, request.headers["content-type"], request.headers.get("soapaction", "")))
            if name == "login":
                return self._login(call, version, kind)
            if root.findtext(f".//{T}Session/{T}token") != self.session or not self.session:
                return Response(fault("NO_SESSION", "Log in first.", version), 500, media_type=kind)
            if self.faults and name != "findMembers":
                return self.faults.pop(0)
            content = {"saveMembers": self._save, "dropMembers": self._drop, "findMembers": self._find}[name](call)
            if self.lost and name != "findMembers":
                self.lost -= 1
                return Response("<html>gateway</html>", 504, media_type="text/html")
            return Response(
                envelope(f'<{name}Response xmlns="urn:registry">{content}</{name}Response>', version), media_type=kind
            )

    def _login(self, call: ET.Element, version: str, kind: str) -> Response:
        given = (call.findtext(f"{T}user"), call.findtext(f"{T}word"))
        if given != (USER, PASSWORD):
            return Response(fault("BAD_LOGIN", f"No user with password {given[1]}.", version), 500, media_type=kind)
        self.logins += 1
        self.session = f"tok<&>{self.logins}-{'s' * 20}"
        content = f'<loginResponse xmlns="urn:registry"><token>{escape(self.session)}</token></loginResponse>'
        return Response(envelope(content, version), media_type=kind)

    def _save(self, call: ET.Element) -> str:
        return "".join(self._save_one(member) for member in call.findall(f"{T}member"))

    def _save_one(self, element: ET.Element) -> str:
        values: dict[str, str | None] = {}
        for child in element:
            name = child.tag.removeprefix(M)
            value = child.text or "" if not len(child) else child[0].text
            values[name] = None if child.get(f"{XSI}nil") == "true" else value
        if str(values.get("name") or "").startswith("bad"):
            return outcome(None, code="BAD_NAME", text=f"{values['name']} is no name")
        given = values.pop("memberId", None)
        if given is not None and given not in self.members:
            return outcome(None, code="GONE", text="No such member")
        email = str(values["email"])
        known = given or next((id_ for id_, member in self.members.items() if member["email"] == email), None)
        id_ = known or f"m{next(self._ids)}"
        self.members[id_] = self.members.get(id_, {}) | values
        return outcome(id_, new=known is None)

    def _drop(self, call: ET.Element) -> str:
        told = []
        for element in call:
            there = self.members.pop(element.text or "", None) is not None
            told.append(outcome(element.text) if there else outcome(None, code="GONE", text="No such member"))
        return "".join(told)

    def _find(self, call: ET.Element) -> str:
        ids = {str(member["email"]): id_ for id_, member in self.members.items()}
        wanted = [element.text or "" for element in call]
        return "".join(
            f"<found><memberId>{ids[email]}</memberId><email>{escape(email)}</email></found>"
            for email in wanted
            if email in ids
        )
