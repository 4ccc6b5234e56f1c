"""What the tests of authentication share: accounts at the sandbox, requests to it, and a process that sends many.

Run as a program it is that process: `python -m integrations_dagster_tests.delivery.auth STORAGE THREADS REQUESTS`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from integrations_dagster.delivery.accounts import Account, Auth
from integrations_dagster.delivery.auth.registry import credentials
from integrations_dagster.delivery.credentials import Credentials
from integrations_dagster.delivery.engine import Drive, RetrySettings
from integrations_dagster.delivery.permits import Permit
from integrations_dagster.delivery.transports.http import HttpSession
from integrations_dagster.destinations.base import Flow, Repeat, Response
from integrations_dagster.destinations.errors import DestinationError
from integrations_dagster.destinations.registry import create
from integrations_dagster.sandbox.endpoint import Endpoint, read_endpoint

READ = "/account-info/v3/details"


def account(endpoint: Endpoint, kind: str, **settings: str) -> Account:
    """An account at the sandbox that is no sandbox account: its credentials are in its settings."""
    return Account(
        f"hubspot:{endpoint.id}",
        endpoint.url,
        10.0,
        in_sandbox=False,
        auth=Auth(kind, settings),
        destination="crm",
        target="prod",
    )


def client(endpoint: Endpoint) -> dict[str, str]:
    """The settings of the sandbox's OAuth client."""
    return {
        "token_url": f"{endpoint.url}/oauth/token",
        "client_id": endpoint.client_id,
        "client_secret": endpoint.client_secret,
    }


def refreshing(endpoint: Endpoint, **settings: str) -> Account:
    """An account with a refresh token that a person gives."""
    return account(
        endpoint, "refresh_token", **client(endpoint), authorize_url=f"{endpoint.url}/oauth/authorize", **settings
    )


class Leave:
    """Leave to send, whenever it is asked for: no ledger is needed."""

    def ask(self) -> Permit:
        return Permit(0.0, time.time() + 60)

    def flight(self) -> AbstractContextManager[None]:
        return nullcontext()

    def silenced(self) -> bool:
        return False

    def throttled(self, permit: Permit, wait: float | None) -> None:
        pass

    def answered(self, response: Response, seconds: float) -> None:
        pass

    def worked(self) -> None:
        pass

    def remember(self, reference: str) -> None:
        pass


class Caller:
    """Asks the sandbox who it is, as HubSpot is asked, over one connection. Belongs to one thread."""

    def __init__(self, account: Account, credentials: Credentials) -> None:
        self._session = HttpSession(account)
        self._credentials = credentials
        self._hubspot = create("hubspot")

    def close(self) -> None:
        self._session.close()

    def call(self) -> Counter[str]:
        """One request, repeated as the engine repeats it; returns what went wrong on the way, by kind.

        Raises:
            DestinationError: It was refused for good.
        """
        drive = Drive(
            self._session,
            self._hubspot,
            self._credentials,
            Leave(),
            Repeat.ALWAYS,
            threading.Event(),
            RetrySettings(attempts=5, base=0.01, cap=0.1),
        )
        drive.run(self._flow)
        return Counter(drive.traffic.errors)

    def _flow(self) -> Flow[str]:
        flow = self._hubspot.identify()
        assert flow is not None
        return flow


def send_many(account: Account, storage: Path, threads: int, requests: int) -> dict[str, int]:
    """Requests of many threads with one instance of credentials.

    Returns:
        done and failed requests, and "unauthorized": answers 401 on the way.
    """
    shared = credentials(account, storage)
    left = iter(range(requests))
    lock = threading.Lock()
    counts: Counter[str] = Counter()

    def work() -> None:
        caller = Caller(account, shared)
        while True:
            with lock:
                if next(left, None) is None:
                    break
            try:
                found = caller.call()
            except DestinationError as error:
                found = Counter({"failed": 1, f"failed {error.kind} {error.code}": 1})
            else:
                found["done"] = 1
            with lock:
                counts.update(found)
        caller.close()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return dict(counts)


def main() -> None:
    storage, threads, requests = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    endpoint = read_endpoint(storage)
    assert endpoint is not None
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(send_many(refreshing(endpoint), storage, threads, requests)), flush=True)


if __name__ == "__main__":
    main()
