"""What a waiting job takes in the memory of Redis."""

from collections.abc import Iterator

import redis

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.stores import Store
from benchmarks.tasks import noop

__all__ = ["measure"]


def measure(bench: Bench) -> Iterator[Figure]:
    """Give the bytes per waiting job with one small argument, by what the server says it uses."""
    count = bench.size(1_000_000, 50_000, step=1000)
    bench.say(f"memory of {count:,} waiting jobs")
    store = Store(bench.place, "size")
    with redis.Redis.from_url(store.url) as client:
        before = client.info("memory")["used_memory"]
        store.fill(noop, count)
        taken = client.info("memory")["used_memory"] - before
    store.remove()
    yield Figure.of("size.waiting", f"each of {count:,} waiting jobs", "bytes", [taken / count])
