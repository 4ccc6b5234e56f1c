"""Whether a write op's memory stays the same when it has ten times the candidates.

    python -m benchmarks.memory [--rows 100000] [--large]

`--large` compares 10M rows with 1M. The server answers at once: the same rows go through in less time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.processes import Server, end_on_sigterm, serving, temporary
from benchmarks.runs import run
from benchmarks.setting import Setting
from integrations_dagster.vocabulary import Status

BUDGET = 1.2


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="candidates of the smaller run")
    parser.add_argument("--large", action="store_true", help="the same as --rows 1000000")
    parser.add_argument("--factor", type=int, default=10, help="how many times as many the larger run has")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that a request takes at the server")
    options = parser.parse_args(arguments)
    rows = 1_000_000 if options.large else options.rows
    with serving(latency=options.latency) as server:
        small = peak(server, rows, options.shards)
        large = peak(server, rows * options.factor, options.shards)
    print(f"\npeak memory, {options.factor} times the candidates: {large / small:.2f} times (budget {BUDGET})")


def peak(server: Server, rows: int, shards: int) -> float:
    """Peak resident memory in MB of the largest write op of a run that delivers so many new rows."""
    with temporary() as folder:
        setting = Setting(folder, server.port, shards)
        setting.load(rows, 0)
        setting.query()
        server.control(reset=True)
        done = run(setting)
        assert done.report.outcomes[Status.CREATED] == rows, done.report
    found = max(op.memory for op in done.ops)
    print(
        f"{rows:12,} candidates in {len(done.ops)} write ops: {found:6.1f} MB at the most, {done.write_seconds:6.1f} s",
        flush=True,
    )
    return found


if __name__ == "__main__":
    end_on_sigterm()
    main()
