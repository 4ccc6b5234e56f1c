"""How close a write comes to what the API's latency permits.

    python -m benchmarks.write [--rows 1000000] [--rounds 1] [--profile]

In one run, one after the other, against one server with 50 ms latency and with 16 requests in flight: prepared bodies
over kept-alive raw connections; a `requests.Session` in a thread pool; a sync without Dagster, each write op in a
process of its own; the same sync as a Dagster run with the default executor.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import SETTING
from benchmarks.baselines import prepared, requests_pool
from benchmarks.processes import LONGEST, ROOT, Server, end_on_sigterm, peak_memory, serving, temporary
from benchmarks.profiling import show
from benchmarks.runs import run
from benchmarks.setting import TOKEN, Setting, as_text
from integrations_dagster.vocabulary import Status

RAW = "prepared bodies, raw connections"
POOL = "prepared bodies, requests.Session"
PLAIN = "sync, without Dagster"
DAGSTER = "sync, Dagster run"


@dataclass(frozen=True)
class Result:
    """One measured way of writing all rows.

    Attributes:
        write: Seconds of the write phase: from the start of the first write op to the end of the last.
        whole: Seconds of plan, write and record; of a baseline, those of `write`.
        phases: Seconds of each phase by name.
        cpu: CPU seconds of the clients.
        server_cpu: CPU seconds of the server.
        memory: Peak resident memory of the largest write op in MB; 0 where it is not measured.
        requests: Requests that the server saw.
        bytes: Bytes of their bodies.
        in_flight: Requests in flight at once at the most.
        accepted: When each request arrived, on the machine's monotonic clock.
    """

    write: float
    whole: float
    phases: Mapping[str, float]
    cpu: float
    server_cpu: float
    memory: float
    requests: int
    bytes: int
    in_flight: int
    accepted: Sequence[float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="changed rows")
    parser.add_argument("--batch-rows", type=int, default=100, help="rows of a request")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that a request takes at the server")
    parser.add_argument("--in-flight", type=int, default=16, help="requests in flight over all shards")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1, help="how often each way is measured")
    parser.add_argument("--timeline", action="store_true", help="also print the requests of each second")
    parser.add_argument("--no-dagster", action="store_true", help="leave the Dagster run out")
    parser.add_argument("--profile", action="store_true", help="instead: one write op of all rows under cProfile")
    options = parser.parse_args(arguments)
    with serving(latency=options.latency) as server, temporary() as folder:
        shards = 1 if options.profile else options.shards
        setting = Setting(folder, server.port, shards, options.batch_rows, options.in_flight)
        if options.profile:
            profile(setting, options.rows)
        else:
            measure(server, setting, options)


def profile(setting: Setting, rows: int) -> None:
    """One write op of all rows under cProfile."""
    setting.load(rows, 0)
    setting.query()
    path = str(Path(setting.folder) / "profile")
    done = run(setting, profile=path)
    show(path, -(-rows // setting.batch_rows))
    print(f"\n{done.ops[0].cpu:.1f} s CPU, {done.write_seconds:.1f} s wall (profiling included)")


def measure(server: Server, setting: Setting, options: argparse.Namespace) -> None:
    """Each way in turn, then the first once more: the machine may have changed under them."""
    rows = options.rows
    results: dict[str, list[Result]] = {}

    def note(name: str, result: Result) -> None:
        results.setdefault(name, []).append(result)
        print(f"  {name}: {result.write:.2f} s", flush=True)
        if options.timeline:
            first = result.accepted[0]
            each = Counter(int(moment - first) for moment in result.accepted)
            print("    requests of each second:", *(each[second] for second in range(max(each) + 1)))

    print(
        f"{rows:,} rows, {setting.batch_rows} a request, {options.latency * 1000:g} ms, {setting.in_flight} in flight"
    )
    # All rows are delivered once, so that the measured runs find them changed; no latency, not measured.
    server.control(latency=0.0)
    setting.load(rows, 0)
    setting.query()
    run(setting)
    server.control(latency=options.latency)
    version = 0
    for _ in range(options.rounds):
        note(RAW, baseline(server, setting, rows, raw=True))
        version += 1
        note(PLAIN, plain(server, setting, rows, version))
        note(POOL, baseline(server, setting, rows, raw=False))
        if not options.no_dagster:
            version += 1
            note(DAGSTER, dagster_run(server, setting, rows, version))
    note(RAW, baseline(server, setting, rows, raw=True))
    tell(results, rows)


def baseline(server: Server, setting: Setting, rows: int, *, raw: bool) -> Result:
    """Prepared bodies."""
    server.control(reset=True)
    way = prepared if raw else requests_pool
    done = way(server.port, rows, setting.batch_rows, setting.in_flight)
    return _result(server, rows, done.seconds, done.seconds, {"write": done.seconds}, done.cpu, 0.0)


def plain(server: Server, setting: Setting, rows: int, version: int) -> Result:
    """A run without Dagster in which every row has changed."""
    setting.load(rows, version)
    query = setting.query()
    server.control(reset=True)
    done = run(setting)
    assert done.report.outcomes[Status.UPDATED] + done.report.outcomes[Status.CREATED] == rows, done.report
    phases = {"query": query, "plan": done.plan_seconds, "write": done.write_seconds, "record": done.record_seconds}
    cpu, memory = sum(op.cpu for op in done.ops), max(op.memory for op in done.ops)
    return _result(server, rows, done.write_seconds, done.seconds, phases, cpu, memory)


def dagster_run(server: Server, setting: Setting, rows: int, version: int) -> Result:
    """A Dagster run in which every row has changed, with the project's own dagster.yaml and executor."""
    setting.load(rows, version)
    server.control(reset=True)
    home = Path(setting.folder) / "dagster_home"
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", home)
    env = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "INTEGRATIONS_STORAGE": str(setting.storage),
        SETTING: as_text(setting),
        TOKEN: "pat-benchmark",
    }
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "benchmarks.location", "-j", "sync_contacts"]
    output = Path(setting.folder) / "dagster.txt"
    launched = time.time()
    with output.open("wb") as file:
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        watch = Watch(process.pid)
        try:
            code = process.wait(LONGEST)
        finally:
            watch.end()
            if process.poll() is None:
                end_tree(process)
    if code != 0:
        raise RuntimeError(output.read_text("utf-8", "replace")[-5000:])
    spans, pids = _steps(home)
    writes = {step: span for step, span in spans.items() if "write" in step}
    write = max(end for _, end in writes.values()) - min(start for start, _ in writes.values())
    plan_start = next(start for step, (start, _) in spans.items() if step.endswith(".plan"))
    end = max(end for _, end in spans.values())
    phases = {step.rpartition(".")[2]: end - start for step, (start, end) in spans.items() if step not in writes}
    phases = {"launch to query": min(start for start, _ in spans.values()) - launched, **phases, "write": write}
    cpu = sum(watch.cpu.get(pids[step], 0.0) for step in writes)
    memory = max(watch.memory.get(pids[step], 0.0) for step in writes)
    return _result(server, rows, write, end - plan_start, phases, cpu, memory)


def _steps(home: Path) -> tuple[dict[str, tuple[float, float]], dict[str, int]]:
    """Start and end (seconds since the epoch) of each step of the newest run, and their process ids."""
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home)) as instance:
        run_id = instance.get_runs(limit=1)[0].run_id
        stats = {stat.step_key: stat for stat in instance.get_run_step_stats(run_id)}
        pids = {}
        for entry in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_WORKER_STARTED).records:
            event = entry.event_log_entry.dagster_event
            assert event is not None
            pids[event.step_key or ""] = int(str(event.engine_event_data.metadata["pid"].value))
    return {key: (float(stat.start_time or 0), float(stat.end_time or 0)) for key, stat in stats.items()}, pids


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it has started."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


class Watch:
    """Looks at a tree of processes now and then: CPU seconds and peak memory of each, as last seen."""

    EVERY = 0.5

    def __init__(self, pid: int) -> None:
        self.cpu: dict[int, float] = {}
        self.memory: dict[int, float] = {}
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self.EVERY):
            try:
                family = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:
                return
            for process in family:
                try:
                    times = process.cpu_times()
                    self.cpu[process.pid] = times.user + times.system
                    self.memory[process.pid] = peak_memory(process.pid)
                except (psutil.Error, OSError):
                    continue


def _result(
    server: Server, rows: int, write: float, whole: float, phases: Mapping[str, float], cpu: float, memory: float
) -> Result:
    seen: dict[str, Any] = server.control()
    if seen["rows"] != rows or seen["distinct"] != rows:
        raise RuntimeError(
            f"{rows:,} rows were to be sent; the server saw {seen['rows']:,}, {seen['distinct']:,} distinct."
        )
    return Result(
        write,
        whole,
        phases,
        cpu,
        seen["cpu"],
        memory,
        seen["requests"],
        seen["bytes"],
        seen["most_in_flight"],
        seen["accepted"],
    )


def tell(results: Mapping[str, Sequence[Result]], rows: int) -> None:
    """Print what was measured; of several rounds the means."""
    print(
        f"\n{'':36}{'rows/s':>9}{'seconds':>9}{'CPU s':>8}{'server':>8}{'MB':>7}"
        f"{'requests':>10}{'KB each':>9}{'in flight':>11}"
    )
    for name, measured in results.items():
        m = {f: statistics.fmean(getattr(r, f) for r in measured) for f in ("write", "cpu", "server_cpu", "memory")}
        last = measured[-1]
        print(
            f"{name:36}{rows / m['write']:9,.0f}{m['write']:9.2f}{m['cpu']:8.1f}{m['server_cpu']:8.1f}"
            f"{m['memory']:7.0f}{last.requests:10,}{last.bytes / last.requests / 1000:9.1f}{last.in_flight:11}"
        )
    for name in (PLAIN, DAGSTER):
        if name in results:
            means = {p: statistics.fmean(r.phases[p] for r in results[name]) for p in results[name][0].phases}
            print(f"\n{name}: " + ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in means.items()))
    raw, pool = (statistics.fmean(r.write for r in results[name]) for name in (RAW, POOL))
    print("\nspeed, as a share of prepared bodies over      raw connections   requests.Session   (budget)")
    for name in (PLAIN, DAGSTER):
        for what, budget in (("write", "0.95"), ("whole", "0.85")):
            if name in results:
                seconds = statistics.fmean(getattr(r, what) for r in results[name])
                title = f"{name}, {'write phase' if what == 'write' else 'plan + write + record'}"
                print(f"  {title:45}{raw / seconds:15.3f}{pool / seconds:19.3f}   ({budget})")


if __name__ == "__main__":
    end_on_sigterm()
    main()
