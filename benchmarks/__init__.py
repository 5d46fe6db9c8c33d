"""Measures penstock beside a bare SQLite loop and huey, on this machine; `python -m benchmarks`."""
