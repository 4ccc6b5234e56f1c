"""Runs the checks: as pytest tests, or with a report as text."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from integrations_dagster.testing import check_faults, check_rows, check_state
from integrations_dagster.testing.checks import CHECKS, Check, Failed, Per, Skipped, actions
from integrations_dagster.testing.lab import Bench, instance, modes_of, opened
from integrations_dagster.testing.subject import Subject
from integrations_dagster.testing.todo import unfilled
from integrations_dagster.vocabulary import IntegrationsError

__all__ = ["CHECKS", "Case", "Result", "cases", "check_faults", "check_rows", "check_state", "run_checks"]


@dataclass(frozen=True, slots=True)
class Case:
    """One check, and what of the destination it is done for."""

    check: Check
    arguments: tuple[Any, ...] = ()

    @property
    def id(self) -> str:
        """As "partial_failure[upsert-1]"."""
        said = "-".join(str(getattr(a, "value", a)) for a in self.arguments)
        return f"{self.check.name}[{said}]" if said else self.check.name

    def run(self, bench: Bench) -> None:
        """Do it.

        Raises:
            Failed: The destination does not keep the promise.
            Skipped: It says nothing of this destination.
        """
        reason = bench.subject.skip.get(self.check.name)
        if reason:
            raise Skipped(reason)
        with bench.lab() as lab:
            if self.check.proxied and lab.destination.transport != "http":
                raise Skipped(
                    f"Requests go by {lab.destination.transport}, and this check has to stand between; test it by the "
                    "destination's own tests."
                )
            try:
                self.check.function(lab, *self.arguments)
            except (Failed, Skipped):
                raise
            except IntegrationsError as error:
                raise Failed(f"The run stopped: {error}") from error


@dataclass(frozen=True, slots=True)
class Result:
    """What a case came to.

    Attributes:
        outcome: "passed", "failed", "skipped", or "broken" (the check itself could not be done).
        message: Why, or "".
        seconds: How long it took.
    """

    case: Case
    outcome: str
    message: str
    seconds: float

    @property
    def line(self) -> str:
        """One line of a report."""
        return f"{self.outcome:<7} {self.case.id:<32} {self.message}".rstrip()


def cases(subject: Subject, seeds: Sequence[int] = (0, 1)) -> list[Case]:
    """The checks of a subject; needs no server.

    Args:
        seeds: Of the checks that draw.
    """
    modes = modes_of(subject, instance(subject))
    found: list[Case] = []
    for check in CHECKS:
        each: list[tuple[Any, ...]] = [()]
        if check.per is Per.MODE:
            each = [(mode,) for mode in sorted(modes)]
        elif check.per is Per.ACTION:
            each = [(action,) for action in actions(modes)]
        for arguments in each:
            drawn = [(*arguments, seed) for seed in seeds] if check.seeds else [arguments]
            found += [Case(check, given) for given in drawn]
    return found


def results(subject: Subject, seeds: Sequence[int] = (0, 1), only: Sequence[str] = ()) -> Iterator[Result]:
    """Do the checks, one after the other.

    Args:
        only: Names of checks; empty: all.
    """
    with opened(subject) as bench:
        for case in cases(subject, seeds):
            if only and case.check.name not in only:
                continue
            began = time.monotonic()
            outcome, message = "passed", ""
            try:
                case.run(bench)
            except Failed as failed:
                outcome, message = "failed", str(failed)
            except Skipped as skipped:
                outcome, message = "skipped", str(skipped)
            except Exception:  # noqa: BLE001 (told in the report; the other checks go on)
                outcome, message = "broken", traceback.format_exc()
            yield Result(case, outcome, message, time.monotonic() - began)


def run_checks(subject: Subject, seeds: Sequence[int] = (0, 1)) -> tuple[bool, str]:
    """Do all checks, without pytest.

    Returns:
        Whether none failed, and a report: a line for each check, and what each failed one promises.
    """
    left = unfilled(subject)
    if left:
        return False, "\n".join([f"{subject.name} cannot be tested yet. To do:", *(f"- {what}" for what in left)])
    done = list(results(subject, seeds))
    bad = [result for result in done if result.outcome in ("failed", "broken")]
    lines = [f"Conformance of {subject.name}", "", *(result.line for result in done), ""]
    lines += [f"{result.case.check.name} promises: {result.case.check.promise}" for result in bad]
    counted = {name: sum(r.outcome == name for r in done) for name in ("passed", "failed", "broken", "skipped")}
    seconds = sum(result.seconds for result in done)
    lines.append(", ".join(f"{count} {name}" for name, count in counted.items()) + f" in {seconds:.1f} s")
    return not bad, "\n".join(lines)
