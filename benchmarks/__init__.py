"""Measurements, each `python -m benchmarks.NAME`; the last line printed is JSON."""
