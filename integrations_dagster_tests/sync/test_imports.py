"""What a step must not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from integrations_dagster_tests.sync.harness import Bench

SCRIPT = """
import sys
from pathlib import Path
from integrations_dagster.sandbox.endpoint import read_endpoint
from integrations_dagster.sync.spec import FieldSpec
from integrations_dagster_tests.sync.harness import Bench

folder = Path(sys.argv[1])
bench = Bench(folder, read_endpoint(folder))
model = bench.model("people", "SELECT * FROM people", "id")
fields = (FieldSpec("signup_at", "at"), FieldSpec("last_order_date", "day"))
report = bench.run(bench.contacts(model, fields=fields))
assert report.counts.added == 3, report
assert report.counts.invalid == 1, report
bench.close()
print("loaded:", sorted(name for name in ("pandas", "dagster") if name in sys.modules))
"""


def test_a_whole_run_imports_neither_pandas_nor_dagster(bench: Bench) -> None:
    """Importing pandas costs a step more than a second, and pyarrow does it behind one's back."""
    columns = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR", "at": "TIMESTAMPTZ", "day": "DATE"}
    rows = [
        {"id": i, "email": f"p{i}@example.com", "firstname": "N", "at": "2026-08-01 10:00:00+02", "day": "2026-08-01"}
        for i in range(3)
    ]
    bench.load("people", [*rows, {"id": 9, "email": None}], columns)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(bench.folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("loaded: []"), done.stdout
