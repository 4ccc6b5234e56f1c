"""How much of an account's quota is used, and how much is refused, when many processes share it.

    python -m benchmarks.quota [CASE ...] [--seconds N]

Cases: `published-100/1` and `published-100/10` (100 requests a second, 100 in ten seconds: declared in the settings of
the destination), `unknown-50`, `unknown-200` (so many a second: not declared, and no answer tells), and the same with
`-retry-after` (a 429 says how long to wait). Each is one account with two syncs that run at once, each with four write
ops in processes of their own. The server's quotas are exact sliding windows.

The unknown quota is met twice: by an account that has never been used, and by a second run right after, which starts
from what the first has learned.
"""

from __future__ import annotations

import argparse
import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.processes import end_on_sigterm, serving, temporary
from benchmarks.runs import run_together
from benchmarks.setting import Setting

AGAIN = "  second run, after its first second"
STARTING = 0.5
"""Seconds until the write ops have sent their first requests, generously."""
SYNCS = ("contacts", "contacts_too")


@dataclass(frozen=True)
class Case:
    """One quota.

    Attributes:
        quota: (requests, seconds) at the server.
        declared: Whether the destination's settings name it.
        headers: What the server tells; see `server.Settings`.
        seconds: How long each run is let run.
        after: Seconds at its beginning that do not count for the share that is used.
        used: Budget: share of the quota that is used at least.
        throttled: Budget: share of the requests that is refused at the most.
    """

    quota: tuple[int, float]
    declared: bool
    headers: str
    seconds: float
    after: float
    used: float
    throttled: float


def published(requests: int, window: float, seconds: float) -> Case:
    """A quota that the settings declare: the first window does not count."""
    return Case((requests, window), True, "none", seconds, window, 0.97, 0.001)


def unknown(requests: int, headers: str) -> Case:
    """A quota that nobody tells: the first ten seconds do not count."""
    return Case((requests, 1.0), False, headers, 60.0, 10.0, 0.9, 0.01)


CASES = {
    "published-100/1": published(100, 1.0, 30.0),
    "published-100/10": published(100, 10.0, 60.0),
    "unknown-50": unknown(50, "none"),
    "unknown-200": unknown(200, "none"),
    "unknown-50-retry-after": unknown(50, "retry_after"),
    "unknown-200-retry-after": unknown(200, "retry_after"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--seconds", type=float, help="how long each run is let run")
    parser.add_argument("--again", type=float, help="how long the second run of an unknown quota is (default: a third)")
    parser.add_argument("--batch-rows", type=int, default=2, help="rows of a request")
    parser.add_argument("--shards", type=int, default=4, help="write ops of a sync")
    parser.add_argument("--syncs", type=int, default=2, choices=(1, 2), help="syncs that run at once")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that a request takes at the server")
    parser.add_argument("--headers", help="what the server tells: none, retry_after, hubspot (default: by case)")
    parser.add_argument("--timeline", action="store_true", help="accepted and refused requests of each second")
    options = parser.parse_args(arguments)
    if wrong := [name for name in options.cases if name not in CASES]:
        parser.error(f"no case {', '.join(wrong)}; there are {', '.join(CASES)}")
    print(
        f"{options.syncs} sync(s) x {options.shards} write ops on one account, {options.batch_rows} rows a request, "
        f"{options.latency * 1000:g} ms"
        f"\n\n{'':36}{'seconds':>8}{'accepted':>10}{'refused':>9}{'used':>8}{'(budget)':>10}{'throttled':>11}{'(budget)':>10}"
    )
    for name in options.cases or CASES:
        measure(name, CASES[name], options)


def measure(name: str, case: Case, options: argparse.Namespace) -> None:
    """Run one case."""
    seconds = options.seconds or case.seconds
    again = 0.0 if case.declared else (options.again or seconds / 3)
    requests, window = case.quota
    headers = options.headers or case.headers
    with serving(latency=options.latency, quotas=[case.quota], headers=headers) as server, temporary() as folder:
        quotas = (case.quota,) if case.declared else ()
        setting = Setting(folder, server.port, options.shards, options.batch_rows, quotas=quotas)
        # More than can be sent, however unevenly the write ops share the quota: the runs are cancelled, not finished.
        most = requests * ((seconds + again + 1) / window + 1)
        setting.load(int(3 * most * options.batch_rows / options.syncs) + 100, 0)
        setting.query()
        server.control(reset=True)
        end = run_together(setting, SYNCS[: options.syncs], seconds + STARTING)
        tell(name, case, server.control(reset=True), min(case.after, seconds / 2), end, timeline=options.timeline)
        if again:
            end = run_together(setting, SYNCS[: options.syncs], again + STARTING)
            tell(AGAIN, case, server.control(), min(1.0, again / 2), end, timeline=options.timeline)


def tell(name: str, case: Case, seen: dict[str, Any], after: float, end: float, *, timeline: bool) -> None:
    """Print the shares.

    Args:
        seen: What the server counted.
        after: Seconds from the first request on that do not count for the share used.
        end: When the runs were cancelled.
    """
    accepted, throttled = seen["accepted"], seen["throttled"]
    if not accepted:
        raise RuntimeError(f"{name}: the server has accepted no request.")
    start = min([accepted[0], *throttled[:1]])
    # Whole windows: no such interval, open at its left, can hold more than the quota, so no burst shows as over 100%.
    windows = max(1, int((end - start - after) / case.quota[1]))
    first, last = start + after, start + after + windows * case.quota[1]
    counted = bisect.bisect_right(accepted, last) - bisect.bisect_right(accepted, first)
    used, refused = counted / (case.quota[0] * windows), len(throttled) / (len(accepted) + len(throttled))
    print(
        f"{name:36}{end - start:8.1f}{len(accepted):10,}{len(throttled):9,}{used:8.1%}{case.used:>10.0%}{refused:11.2%}"
        f"{case.throttled:>10.1%}",
        flush=True,
    )
    if timeline:
        for second in range(int(end - start) + 1):
            low, high = start + second, start + second + 1
            counts = [
                bisect.bisect_left(times, high) - bisect.bisect_left(times, low) for times in (accepted, throttled)
            ]
            print(f"    second {second:3}: {counts[0]:4} accepted, {counts[1]:4} refused")


if __name__ == "__main__":
    end_on_sigterm()
    main()
