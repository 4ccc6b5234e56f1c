"""Measurements of the project against its budgets; see docs/benchmarks.md."""

SETTING = "BENCHMARK_SETTING"
"""The environment variable that tells a code location its `Setting`."""
