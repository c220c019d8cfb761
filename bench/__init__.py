"""Benchmarks: holdfast beside the raw-commit ceiling of the same machine in the same minute."""
