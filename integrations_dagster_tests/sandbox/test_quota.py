"""Quotas of several windows at once, a cap on concurrent requests, and the ways to say when to come back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from integrations_dagster.destinations.base import Response
from integrations_dagster.destinations.error_table import asked_wait
from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.destinations.usage import usage
from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.quota import STYLES, Quotas, Window
from integrations_dagster_tests.sandbox.conftest import Api

INSERTS = "/inserts/shop/orders"
ROWS = {"rows": [{"key": "a", "record": {}}]}


def lower(answer: Any) -> Response:
    return Response(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)


def test_all_windows_hold_at_once(api: Api, sandbox: SandboxClient) -> None:
    sandbox.configure(
        quota=[{"limit": 6, "window": 60}, {"limit": 4, "window": 0.3}, {"limit": 250_000, "window": 86_400}]
    )
    statuses = [api.call("POST", INSERTS, ROWS).status_code for _ in range(6)]
    assert statuses == [200] * 4 + [429] * 2
    time.sleep(0.35)
    assert [api.call("GET", "/account-info/v3/details").status_code for _ in range(4)] == [200, 200, 429, 429]
    quota = sandbox.stats()["quota"]
    assert (quota["accepted"], quota["throttled"]) == (6, 4)
    assert quota["throttled_by"] == {"4 requests per 0.3 s": 2, "6 requests per 60 s": 2}
    times = sandbox.accepted()
    assert len(times) == 6
    assert times == sorted(times)
    assert times[4] - times[0] >= 0.3
    # Refused requests do nothing.
    assert sandbox.insert_counts("shop", "orders") == {"a": 4}


def test_hubspot_names_its_windows(api: Api, sandbox: SandboxClient) -> None:
    sandbox.configure(quota=[{"limit": 100, "window": 10}, {"limit": 10, "window": 1}, {"limit": 2, "window": 86_400}])
    answer = lower(api.call("GET", "/account-info/v3/details"))
    assert [(u.seconds, u.limit, u.remaining) for u in HubSpot().usage(answer)] == [
        (10.0, 100, 99),
        (1.0, 10, 9),
        (86_400.0, 2, 1),
    ]
    api.call("GET", "/account-info/v3/details")
    assert api.call("GET", "/account-info/v3/details").json()["policyName"] == "DAILY"


def test_other_apis_tell_the_tightest_window(api: Api, sandbox: SandboxClient) -> None:
    sandbox.configure(quota=[{"limit": 100, "window": 10}, {"limit": 10, "window": 1}])
    (told,) = usage(lower(api.call("POST", INSERTS, ROWS)).headers)
    assert (told.seconds, told.limit, told.remaining) == (1.0, 10, 9)
    assert told.reset is not None
    assert 0 < told.reset <= 1


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("path", [INSERTS, "/crm/v3/objects/contacts/batch/read"])
def test_each_way_to_say_when_to_come_back_is_understood(
    api: Api, sandbox: SandboxClient, style: str, path: str
) -> None:
    sandbox.configure(quota={"limit": 1, "window": 30}, retry_style=style)
    api.call("POST", path, ROWS)
    refused = api.call("POST", path, ROWS)
    assert refused.status_code == 429
    wait = asked_wait({k.lower(): v for k, v in refused.headers.items() if not k.lower().startswith("ratelimit-")})
    if style == "none":
        assert wait is None
        return
    assert wait is not None
    assert 28 <= wait <= 32
    if style == "retry_after_date":
        assert parsedate_to_datetime(refused.headers["Retry-After"]).timestamp() > time.time()


def test_so_many_requests_at_once(api: Api, sandbox: SandboxClient) -> None:
    sandbox.configure(concurrency=3)
    sandbox.faults([{"match": {"path": INSERTS}, "times": 3, "fault": {"kind": "hold"}}])

    def insert(_: int) -> int:
        other = Api(api.endpoint)
        with other.session:
            return other.call("POST", INSERTS, ROWS).status_code

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(insert, i) for i in range(3)]
        sandbox.wait_held(3)
        refused = api.call("POST", INSERTS, ROWS)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "THROTTLED")
        assert "Retry-After" not in refused.headers
        # Deliveries and messages are none of the account's requests.
        assert api.call("POST", "/webhook/shop", {}).status_code == 401
        sandbox.release()
        assert [future.result(20) for future in waiting] == [200] * 3
    assert api.call("POST", INSERTS, ROWS).status_code == 200
    quota = sandbox.stats()["quota"]
    assert (quota["in_flight"], quota["most_in_flight"]) == (0, 3)
    assert quota["throttled_by"] == {"3 concurrent requests": 1}


def test_settings_are_kept_apart(sandbox: SandboxClient) -> None:
    sandbox.configure(quota=[{"limit": 5, "window": 1}, {"limit": 9, "window": 10}], retry_style="retry_after_date")
    now = sandbox.configure(concurrency=2)
    assert now["quota"] == [{"limit": 5, "window": 1.0}, {"limit": 9, "window": 10.0}]
    assert (now["concurrency"], now["retry_style"]) == (2, "retry_after_date")
    assert sandbox.configure(quota=None)["quota"] == {"limit": 1000, "window": 1.0}
    impossible: tuple[dict[str, Any], ...] = (
        {"quota": []} | {"concurrency": 0},
        {"retry_style": "politely"},
        {"quota": {"limit": 0}},
        {"quota": [{"limit": 1, "speed": 2}]},
        {"insert_bytes": -1},
        {"job_seconds": -1},
    )
    for wrong in impossible:
        with pytest.raises(ValueError, match=r"."):
            sandbox.configure(**wrong)
    assert sandbox.configure()["concurrency"] == 2


def test_a_window_rolls() -> None:
    window = Window(2, 10.0)
    for now in (0.0, 4.0):
        assert window.left(now) > 0
        window.take(now)
    assert (window.left(9.9), window.reset(9.0)) == (0, 1.0)
    assert window.left(10.0) == 1


def test_refused_requests_do_not_count() -> None:
    quotas = Quotas([{"limit": 2, "window": 60}])
    assert [quotas.enter() is None for _ in range(5)] == [True, True, False, False, False]
    assert quotas.stats() == {
        "accepted": 2,
        "throttled": 3,
        "throttled_by": {"2 requests per 60 s": 3},
        "in_flight": 2,
        "most_in_flight": 2,
    }
