"""Faults on demand: rules that say which requests go wrong, and how.

A rule is a mapping:

    {"match": {"path": "/crm/*/batch/upsert", "method": "POST", "rows_with": "ana@"},
     "after": 2, "times": 1, "probability": 0.5, "seed": 7,
     "fault": {"kind": "reset", "applied": True}}

Everything but `fault` may be left out. `match` compares the path with a glob, and the raw body with a substring. The
first `after` matching requests pass, then at most `times` go wrong, each with the given probability. For each request
the rules are asked in order: every matching `latency` and `reject_rows` adds up, a `fail_job` goes with them, and of
the others the first one wins.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

KINDS: dict[str, frozenset[str]] = {
    "latency": frozenset({"seconds"}),
    "status": frozenset({"status", "retry_after", "retry_after_date", "body", "headers"}),
    "html": frozenset({"status"}),
    "unauthorized": frozenset(),
    "redirect": frozenset({"status", "location"}),
    "reset": frozenset({"applied"}),
    "hold": frozenset({"applied", "seconds", "late"}),
    "malformed": frozenset({"applied"}),
    "truncated": frozenset({"applied"}),
    "oversized": frozenset({"applied", "bytes"}),
    "endless": frozenset({"applied", "bytes", "seconds"}),
    "slow_head": frozenset({"applied", "seconds"}),
    "empty": frozenset({"applied"}),
    "reject_rows": frozenset({"with", "code", "message", "category", "property"}),
    "fail_job": frozenset({"rows", "message"}),
}
"""Each kind of fault, and the settings it takes beside `kind`."""

_REQUIRED = {"latency": "seconds", "reject_rows": "with"}
_APPLIED = {"malformed": True, "truncated": True, "oversized": True, "endless": True, "slow_head": True}
_BESIDE = ("latency", "reject_rows", "fail_job")
"""Kinds that leave the answer to the stand-in, and go together with others."""


def applied(fault: Mapping[str, Any]) -> bool:
    """Whether a request with this fault takes effect; by default only where the answer is what goes wrong."""
    return bool(fault.get("applied", _APPLIED.get(str(fault["kind"]), False)))


@dataclass(slots=True)
class Rule:
    """A rule, and what it has done so far."""

    path: str
    method: str
    rows_with: bytes
    after: int
    times: int | None
    probability: float
    random: random.Random
    fault: dict[str, Any]
    matched: int = 0
    fired: int = 0

    @classmethod
    def parse(cls, rule: Mapping[str, Any]) -> Rule:
        """Read a rule.

        Raises:
            ValueError: What is unknown or missing in it.
        """
        match, fault = rule.get("match") or {}, rule.get("fault")
        _only(rule, {"match", "after", "times", "probability", "seed", "fault"}, "a fault rule")
        _only(match, {"path", "method", "rows_with"}, "match")
        if not isinstance(fault, Mapping) or fault.get("kind") not in KINDS:
            raise ValueError(f"A fault rule needs a fault with a kind, one of {', '.join(KINDS)}; got {fault!r}.")
        kind = str(fault["kind"])
        _only(fault, KINDS[kind] | {"kind"}, f"a fault of kind {kind}")
        if kind in _REQUIRED and _REQUIRED[kind] not in fault:
            raise ValueError(f"A fault of kind {kind} needs {_REQUIRED[kind]}.")
        times = rule.get("times")
        return cls(
            path=str(match.get("path", "*")),
            method=str(match.get("method", "*")).upper(),
            rows_with=str(match.get("rows_with", "")).encode(),
            after=int(rule.get("after", 0)),
            times=None if times is None else int(times),
            probability=float(rule.get("probability", 1.0)),
            random=random.Random(rule.get("seed", 0)),  # noqa: S311 faults, not secrets
            fault=dict(fault),
        )

    def take(self, method: str, path: str, body: bytes) -> bool:
        """Count a request; whether it goes wrong by this rule."""
        if self.times is not None and self.fired >= self.times:
            return False
        if not (self.method in ("*", method) and fnmatchcase(path, self.path) and self.rows_with in body):
            return False
        self.matched += 1
        if self.matched <= self.after or (self.probability < 1 and self.random.random() >= self.probability):
            return False
        self.fired += 1
        return True


@dataclass(slots=True)
class Taken:
    """The faults of one request.

    Attributes:
        latency: Seconds to wait beside the configured latency.
        fault: The fault that decides the answer, or None.
        rejections: `reject_rows` faults.
        fail_job: The first `fail_job` fault, or None.
    """

    latency: float = 0.0
    fault: dict[str, Any] | None = None
    rejections: list[dict[str, Any]] = field(default_factory=list)
    fail_job: dict[str, Any] | None = None

    @property
    def names(self) -> str:
        """The kinds of fault, for the request log."""
        kinds = ["latency"] if self.latency else []
        kinds += ["reject_rows"] if self.rejections else []
        kinds += ["fail_job"] if self.fail_job else []
        return "+".join(kinds + ([str(self.fault["kind"])] if self.fault else []))


class Faults:
    """The rules in force, and the requests that are held."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._held: set[asyncio.Event] = set()

    def set(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replace the rules.

        Raises:
            ValueError: A rule cannot be read; the old rules stay.
        """
        self._rules = [Rule.parse(rule) for rule in rules]

    def take(self, method: str, path: str, body: bytes) -> Taken:
        """The faults of a request, which count it."""
        taken = Taken()
        for rule in self._rules:
            kind = rule.fault["kind"]
            if taken.fault is not None and kind not in _BESIDE:
                continue
            if not rule.take(method, path, body):
                continue
            if kind == "latency":
                taken.latency += float(rule.fault["seconds"])
            elif kind == "reject_rows":
                taken.rejections.append(rule.fault)
            elif kind == "fail_job":
                taken.fail_job = taken.fail_job or rule.fault
            else:
                taken.fault = rule.fault
        return taken

    def state(self) -> list[dict[str, Any]]:
        """The rules, in order: fault, matched and fired (requests)."""
        return [{"fault": rule.fault, "matched": rule.matched, "fired": rule.fired} for rule in self._rules]

    @property
    def held(self) -> int:
        """How many requests are held now."""
        return len(self._held)

    def release(self) -> int:
        """Let every held request go on; returns how many."""
        for event in self._held:
            event.set()
        return len(self._held)

    async def hold(self, seconds: float | None, gone: asyncio.Task[None] | None) -> bool:
        """Wait until released, for `seconds` at most, or until `gone` is done; False in the last case."""
        event = asyncio.Event()
        self._held.add(event)
        waiter = asyncio.ensure_future(event.wait())
        try:
            tasks: set[asyncio.Future[Any]] = {waiter} if gone is None else {waiter, gone}
            done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return waiter in done or not done
        finally:
            waiter.cancel()
            self._held.discard(event)


def _only(given: Mapping[str, Any], known: frozenset[str] | set[str], what: str) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is no setting of {what}; known: {', '.join(sorted(known)) or 'none'}.")
