"""Where the sandbox of a storage folder listens, and how to authenticate to it.

Standard library only, so that every room can find the sandbox without importing its server.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A sandbox, running or not.

    Attributes:
        id: Names the sandbox's state; kept over restarts, unlike the port.
        url: "http://127.0.0.1:PORT", without a trailing slash; "" before the first start.
        token: Bearer token of its APIs.
        secret: Signing secret of its webhook receiver, "whsec_" and base64.
        pid: Process id of the server that wrote this.
        pid_started: Start of that process in seconds since the epoch.
    """

    id: str
    url: str
    token: str
    secret: str
    pid: int
    pid_started: float

    # What follows from id and token, so that endpoints of before have it too.

    @property
    def client_id(self) -> str:
        """Id of its OAuth client that has a secret."""
        return f"sandbox-client-{self.id[:8]}"

    @property
    def public_client_id(self) -> str:
        """Id of its OAuth client that has none."""
        return f"sandbox-public-{self.id[:8]}"

    @property
    def client_secret(self) -> str:
        """Secret of the client."""
        return self._derived("client secret")

    @property
    def username(self) -> str:
        """The user of HTTP Basic and of its login."""
        return "sandbox"

    @property
    def password(self) -> str:
        """The user's password."""
        return self._derived("password")

    @property
    def api_key(self) -> str:
        """The API key: header `x-api-key` or query `api_key`."""
        return self._derived("api key")

    def _derived(self, what: str) -> str:
        digest = hmac.new(self.token.encode(), what.encode(), hashlib.sha256).digest()
        return f"sandbox-{base64.urlsafe_b64encode(digest[:24]).decode()}"


def state_folder(storage: Path) -> Path:
    """The folder of the sandbox's state below a storage folder."""
    return storage / "sandbox"


def endpoint_path(storage: Path) -> Path:
    """The file `read_endpoint` reads."""
    return state_folder(storage) / "sandbox.json"


def new_endpoint() -> Endpoint:
    """An endpoint with a fresh id, token and secret that has not been started."""
    return Endpoint(
        id=uuid.uuid4().hex,
        url="",
        token=f"sandbox-{secrets.token_urlsafe(24)}",
        secret="whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
        pid=0,
        pid_started=0.0,
    )


def read_endpoint(storage: Path) -> Endpoint | None:
    """The endpoint that was written last, or None where no sandbox has been started.

    Raises:
        ValueError: The file is damaged.
    """
    path = endpoint_path(storage)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return Endpoint(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a sandbox endpoint: delete it, and the sandbox starts as a new one."
        ) from error


def write_endpoint(storage: Path, endpoint: Endpoint) -> None:
    """Write the endpoint file atomically, readable by its owner only."""
    path = endpoint_path(storage)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(endpoint), file, indent=2)
    temporary.replace(path)


def started(endpoint: Endpoint, url: str, pid: int, pid_started: float) -> Endpoint:
    """The same sandbox, listening at another place."""
    return replace(endpoint, url=url, pid=pid, pid_started=pid_started)
