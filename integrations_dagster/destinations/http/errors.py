"""What answers that are no success mean: what YAML says of statuses and codes, then what HTTP says of statuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from integrations_dagster.destinations.answers import LONGEST_CODE, Meaning, Told
from integrations_dagster.destinations.base import Response
from integrations_dagster.destinations.error_table import ErrorEntry, Problem, asked_wait, raise_for, shorten
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    Refused,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.destinations.http.answer_forms import ErrorKeys
from integrations_dagster.destinations.http.forms import HttpApi, OperationKeys
from integrations_dagster.destinations.paths import as_text, find
from integrations_dagster.destinations.usage import number

CONTENT = "rejected"
"""The request was refused for what is in it."""
_CLASSES: Mapping[str, type[DestinationError]] = {
    "throttled": Throttled,
    "unavailable": Unavailable,
    "unauthorized": Unauthorized,
    "too_large": TooLarge,
    "poisoned": PoisonedBatch,
    "misconfigured": Refused,
}
_LOOK_UP = "Look it up in the API's documentation; `errors` of the destination can say what it means."
DEFAULTS: tuple[tuple[str, str, str, str], ...] = (
    ("400", CONTENT, "The request was refused for what is in it.", ""),
    ("401", "unauthorized", "The credentials were not accepted.", "Check the target's `auth`."),
    (
        "403",
        "misconfigured",
        "The credentials are not allowed to do this.",
        "Give them the right, or use others in the target's `auth`.",
    ),
    (
        "404",
        "misconfigured",
        "Nothing is there.",
        "Check `base_url` of the target and the path of the request. If it means that a record is not there, say so: "
        "`errors: {404: missing}`.",
    ),
    ("408", "unavailable", "The request did not arrive in time.", ""),
    ("409", CONTENT, "The request conflicts with what is there.", ""),
    ("413", "too_large", "The request is larger than the API takes.", ""),
    ("422", CONTENT, "The request was refused for what is in it.", ""),
    ("429", "throttled", "The API asks to be sent less.", ""),
    ("4xx", "misconfigured", "The request was refused.", _LOOK_UP),
    ("5xx", "unavailable", "The API is out of order.", ""),
    (
        "3xx",
        "misconfigured",
        "The address answers with a redirect, which is not followed.",
        "Set `base_url` to the address that the redirect names.",
    ),
    ("1xx", "unavailable", "The answer cannot be understood.", ""),
    ("2xx", "unavailable", "The answer has a status that its request does not expect.", ""),
)
"""(status, word, what happened, what to do), the first that fits decides; YAML's own come before."""
_CODES = (
    "error.code",
    "errors[0].code",
    "errors[0].extensions.code",
    "code",
    "error.type",
    "errors[0].type",
    "error",
    "status",
)
_MESSAGES = (
    "error.message", "errors[0].message", "errors[0].detail", "errors[0].title", "message", "detail", "title",
    "error_description", "error.text", "error", "errors[0]", "reason", "msg",
)  # fmt: skip
"""Where APIs usually say why."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer that is no success means.

    Attributes:
        word: One of `answer_forms.WORDS`.
        entry: Words for a person, and how to recover.
        problem: What the answer said.
    """

    word: str
    entry: ErrorEntry
    problem: Problem

    def raise_it(self, label: str, *, writes: bool = True, request: str = "") -> None:
        """Raise what the engine knows how to recover from.

        Args:
            writes: Whether the request had rows; one that has none is not split.
            request: What YAML calls the request; told where it may be the mistake.
        """
        entry, problem = self.entry, self.problem
        if request and entry.recovery is Refused:
            problem = replace(problem, names=(request,))
        if not writes and entry.recovery in (PoisonedBatch, TooLarge):
            entry = replace(entry, recovery=Refused, remedy=entry.remedy or _LOOK_UP)
        raise_for((entry,), label, problem)


class Errors:
    """The errors of an operation (or of a request that is no operation's)."""

    def __init__(self, api: HttpApi, operation: OperationKeys | None = None) -> None:
        self._api = api
        self._own = {**api.errors, **(operation.errors if operation is not None else {})}

    def verdict(
        self,
        response: Response,
        document: Any,
        request_id: str,
        code: str | None = None,
        message: str | None = None,
        *,
        failed: bool = False,
    ) -> Verdict:
        """What an answer means that is no success.

        Args:
            code, message: Where it says why, if that is not where answers of the API usually do.
            failed: Whether its status is one of success, and it says that the request failed.
        """
        problem = self._problem(response, document, request_id, code, message)
        keys = self._said(problem.codes, str(problem.status), problem.message)
        if keys is not None:
            what = keys.says or ("The request failed." if failed else _default(str(problem.status))[2])
            recovery = _CLASSES.get(keys.as_, PoisonedBatch)
            fix = keys.fix or (_LOOK_UP if keys.as_ == "misconfigured" else "")
            return Verdict(
                keys.as_,
                ErrorEntry(str(problem.status), recovery, what, fix, wait=keys.wait),
                problem,
            )
        # A status of success, and the answer says that the request failed.
        _, word, what, fix = ("", CONTENT, "The request failed.", "") if failed else _default(str(problem.status))
        return Verdict(word, ErrorEntry(str(problem.status), _CLASSES.get(word, PoisonedBatch), what, fix), problem)

    def meaning(self, told: Told) -> tuple[Meaning, str]:
        """What becomes of a row that was refused in an answer about several."""
        keys = self._said((told.code,) if told.code else (), told.code, told.message)
        if keys is None:
            if told.code == "429":
                return Meaning.NOT_TAKEN, ""
            return (
                (Meaning.UNKNOWN, "") if len(told.code) == 3 and told.code.startswith("5") else (Meaning.REJECTED, "")
            )
        word = {
            "ignored": Meaning.IGNORED,
            "missing": Meaning.MISSING,
            "throttled": Meaning.NOT_TAKEN,
            "unavailable": Meaning.UNKNOWN,
        }.get(keys.as_, Meaning.REJECTED)
        return word, f"{keys.says} {keys.fix}".strip()

    def _problem(
        self, response: Response, document: Any, request_id: str, code_at: str | None, message_at: str | None
    ) -> Problem:
        paths = self._api.problem
        codes = (code_at, *((paths.code,) if paths.code else _CODES))
        messages = (message_at, *((paths.message,) if paths.message else _MESSAGES))
        code = next(_texts(codes, document), "")
        message = next(_texts(messages, document), "")
        if not message and response.headers.get("content-type", "").startswith("text/plain"):
            message = response.body.decode(errors="replace")
        header = self._api.throttling.wait
        wait = number(response.headers.get(header.lower())) if header else None
        return Problem(
            response.status,
            (shorten(code, LONGEST_CODE),) if code else (),
            shorten(message),
            request_id=request_id,
            wait=asked_wait(response.headers) if wait is None else max(wait, 0.0),
        )

    def _said(self, codes: tuple[str, ...], status: str, message: str) -> ErrorKeys | None:
        """What YAML says: of a code, before a status, before a hundred of them."""
        names = [*codes, status, f"{status[:1]}xx" if len(status) == 3 else ""]
        for name in names:
            keys = self._own.get(name)
            if keys is not None and (not keys.message or keys.message.lower() in message.lower()):
                return keys
        return None


def _default(status: str) -> tuple[str, str, str, str]:
    return next(
        (entry for entry in DEFAULTS if entry[0] in (status, f"{status[:1]}xx")),
        ("", "unavailable", "The answer cannot be understood.", ""),
    )


def _texts(paths: tuple[str | None, ...], document: Any) -> Iterator[str]:
    for path in filter(None, paths):
        try:
            text = as_text(find(path, document))
        except ValueError:
            continue
        if text:
            yield text
