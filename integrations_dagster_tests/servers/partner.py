"""A SOAP server from the npm package `soap` that serves Salesforce's Partner WSDL, and a client of it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import requests

from integrations_dagster_tests.servers.install import SOAP

PATH = "/services/Soap/u/27.0"
WSDL = "salesforce-partner.wsdl.xml"
PARTNER = "{urn:partner.soap.sforce.com}"
SOBJECT = "{urn:sobject.partner.soap.sforce.com}"


def specs() -> Path | None:
    """The folder of vendors' API descriptions, where there is one with the Partner WSDL."""
    folder = os.environ.get("INTEGRATIONS_SPECS")
    return Path(folder) if folder and (Path(folder) / WSDL).is_file() else None


class Partner:
    """A running server, and a client of it that shares nothing with the package."""

    def __init__(self, url: str) -> None:
        self.url = url

    def control(self, **asked: Any) -> dict[str, Any]:
        """Tell the server what to do (see soap_server.js), and be told what it counted."""
        answer: dict[str, Any] = requests.post(f"{self.url}/control", json=asked, timeout=30).json()
        return answer

    def call(self, operation: str, arguments: str, session: str = "") -> ET.Element:
        """The answer to a call; its arguments are XML."""
        header = f"<h:SessionHeader><h:sessionId>{escape(session)}</h:sessionId></h:SessionHeader>"
        envelope = (
            '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:h="urn:partner.soap.sforce.com">'
            f"<e:Header>{header}</e:Header><e:Body><h:{operation}>{arguments}</h:{operation}></e:Body></e:Envelope>"
        )
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": '""'}
        answer = requests.post(self.url + PATH, data=envelope.encode(), headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return ET.fromstring(answer.content)

    def read(self, type_: str, names: list[str]) -> list[dict[str, str | None]]:
        """All records of a type."""
        session = self._login()
        query = f"<h:queryString>SELECT {', '.join(names)} FROM {type_}</h:queryString>"
        root = self.call("query", query, session)
        found: list[dict[str, str | None]] = []
        while True:
            found += [_record(node) for node in root.iter(f"{PARTNER}records")]
            if root.findtext(f".//{PARTNER}done") == "true":
                return found
            locator = escape(root.findtext(f".//{PARTNER}queryLocator") or "")
            root = self.call("queryMore", f"<h:queryLocator>{locator}</h:queryLocator>", session)

    def users(self, names: list[str]) -> dict[str, str]:
        """Make users; returns their ids by name."""
        session = self._login()
        made: dict[str, str] = {}
        for start in range(0, len(names), 200):
            some = names[start : start + 200]
            own = 'xmlns:o="urn:sobject.partner.soap.sforce.com"'
            user = (
                "<h:sObjects {}><o:type>User</o:type><o:LastName>U</o:LastName><o:Username>{}</o:Username></h:sObjects>"
            )
            root = self.call("create", "".join(user.format(own, escape(name)) for name in some), session)
            ids = [node.findtext(f"{PARTNER}id") or "" for node in root.iter(f"{PARTNER}result")]
            made.update(zip(some, ids, strict=True))
        return made

    def _login(self) -> str:
        told = self.control(after=None)
        login = f"<h:username>{told['user']}</h:username><h:password>{escape(told['password'])}</h:password>"
        return self.call("login", login).findtext(f".//{PARTNER}sessionId") or ""


def _record(node: ET.Element) -> dict[str, str | None]:
    return {child.tag.removeprefix(SOBJECT): child.text for child in node}


@contextlib.contextmanager
def running_partner(folder: Path) -> Iterator[Partner]:
    """Run the server on a free port until the context ends.

    Args:
        folder: That of `specs`.
    """
    script = Path(__file__).with_name("soap_server.js")
    env: Mapping[str, str] = os.environ | {"NODE_PATH": str(SOAP / "node_modules")}
    process = subprocess.Popen(["node", str(script), str(folder / WSDL), PATH], stdout=subprocess.PIPE, env=env)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().decode().strip()
        assert port, "the server has ended"
        yield Partner(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
