"""Warehouses: run a model's query, and stream its rows to Parquet files."""
