"""Measures penstock beside other job queues, on the same stores in the same run; `python -m benchmarks.peers`."""
