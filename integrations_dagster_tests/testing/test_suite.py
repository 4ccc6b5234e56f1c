"""The suite itself: its report, what it skips and why, what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

import requests

from integrations_dagster.testing import Answer, results, run_checks, to_do
from integrations_dagster.testing.conformance import CHECKS
from integrations_dagster.testing.proxy import READS, Fault, proxied
from integrations_dagster.vocabulary import Mode
from integrations_dagster_tests.testing.broken import MessageLost
from integrations_dagster_tests.testing.notes import Notes, NotesSubject


class Telegraph(Notes):
    """Not spoken over HTTP."""

    transport: ClassVar[str] = "telegraph"
    modes: ClassVar[frozenset[Mode]] = frozenset({Mode.UPSERT})


class Excused(NotesSubject):
    """Says of some checks why they are left out."""

    skip = {  # noqa: RUF012
        check.name: "It was excused." for check in CHECKS if check.name != "messages"
    }


class Unfinished(NotesSubject):
    object = to_do("Name it.")

    @to_do("Empty it.")  # type: ignore[untyped-decorator]  # it stands for any value
    def reset(self) -> None:
        raise AssertionError("not asked")


def test_every_check_says_what_it_promises() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS) >= 20
    assert all(len(check.promise) > 40 and check.promise.endswith(".") for check in CHECKS)


def test_the_report_says_what_failed_what_was_promised_and_what_was_left_out() -> None:
    good, report = run_checks(Excused(MessageLost))
    assert not good
    lines = report.splitlines()
    assert lines[0] == "Conformance of Excused"
    assert any(line.startswith("failed  messages") and "A reason is empty." in line for line in lines)
    assert any(line.startswith("skipped throttled[upsert]") and "It was excused." in line for line in lines)
    assert any(line.startswith("messages promises: Why a row was rejected") for line in lines)
    assert lines[-1].startswith("0 passed, 1 failed, 0 broken, ")
    good, report = run_checks(Excused())
    assert good, report


def test_what_cannot_be_stood_between_is_skipped_with_the_reason() -> None:
    done = list(results(NotesSubject(Telegraph), only=("throttled", "unknown_answers", "limits", "outage")))
    assert {result.outcome for result in done} == {"skipped"}
    assert all("Requests go by telegraph" in result.message for result in done)


def test_what_is_left_to_do_is_said_without_a_server() -> None:
    good, report = run_checks(Unfinished())
    assert not good
    assert report.splitlines() == [
        "Unfinished cannot be tested yet. To do:",
        "- object: Name it.",
        "- reset: Empty it.",
    ]


def test_the_proxy_forwards_answers_in_place_and_closes() -> None:
    subject = NotesSubject()
    with subject.serve() as url, proxied(url) as proxy:
        assert requests.get(f"{proxy.url}/authors", headers={READS: "1"}, timeout=5).json()["next"] == "2"
        proxy.faults = [Fault(Answer.json(418, {"tea": True}, retry_after="3")), Fault(None)]
        answer = requests.post(f"{proxy.url}/notes", data=b"{}", timeout=5)
        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (418, {"tea": True}, "3")
        try:
            requests.post(f"{proxy.url}/notes", data=b"{}", timeout=5)
        except requests.ConnectionError:
            closed = True
        assert closed
        assert subject.server.requests == 0, "nothing was forwarded"
        assert [(seen.reads, seen.faulted, seen.status) for seen in proxy.seen] == [
            (True, False, 200),
            (False, True, 418),
            (False, True, 0),
        ]


def test_the_suite_is_imported_without_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import integrations_dagster.testing; print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == "ok", done.stderr
