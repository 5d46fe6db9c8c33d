"""Who takes part: each contender's program, environment and numbers of jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["BARE", "CONTENDERS", "OWN", "STORES", "Contender", "chosen"]

STORES = ("redis", "postgresql", "sqlite")
OWN, BARE = "penstock", "bare"
_RESULTS = {"BENCHMARK_RESULTS": "1"}


@dataclass(frozen=True)
class Contender:
    """One queue on one store, with or without results.

    Attributes:
        program: its module in `benchmarks.peers.programs`, which says how it is set up and why.
        home: its environment, by the name of its file in `pins/`; None is the environment of penstock itself.
        packages: those whose versions matter.
        drained: how many jobs it is given to drain: some seconds' worth, so that slow ones end in time.
        note: how it was set up, in short.
        recovers: whether it runs jobs that can be interrupted; the floor does not.
    """

    store: str
    name: str
    title: str
    program: str
    home: str | None
    drained: int
    note: str
    packages: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    recovers: bool = True

    @property
    def key(self) -> str:
        return f"{self.store}.{self.name}"


def chosen(words: Sequence[str]) -> list[Contender]:
    """Give those whose store, name or key is among the words; all without words.

    Raises:
        LookupError: a word names nobody.
    """
    for word in words:
        if not any(word in (one.store, one.name, one.key) for one in CONTENDERS):
            known = sorted({*STORES, *(one.name for one in CONTENDERS)})
            raise LookupError(f"{word!r} is no contender and no store; there are: {', '.join(known)}.")
    return [one for one in CONTENDERS if not words or {one.store, one.name, one.key} & set(words)]


def _on_redis(name: str, title: str, program: str, home: str, drained: int, note: str, **environment: str) -> Contender:
    packages = {"celery": ("celery", "kombu"), "taskiq": ("taskiq", "taskiq-redis")}.get(home, (home,))
    return Contender("redis", name, title, program, home, drained, note, (*packages, "redis", "hiredis"), environment)


def _own(store: str, drained: int) -> Contender:
    note = "1 process of 8 threads, results kept, leased, fenced"
    return Contender(store, OWN, "penstock", "penstock_any", None, drained, note)


def _bare(store: str, title: str, program: str) -> Contender:
    note = "batches of 500, results kept; no tasks, checks, leases"
    return Contender(store, BARE, title, program, None, 200_000, note, recovers=False)


#: Interleaved in this order.
CONTENDERS = (
    _bare("redis", "bare redis-py", "bare_redis"),
    _own("redis", 100_000),
    _on_redis("celery", "Celery, no results", "celery_redis", "celery", 8000, "prefork, prefetch 64"),
    _on_redis("celery-results", "Celery", "celery_redis", "celery", 5000, "prefork, prefetch 64, results", **_RESULTS),
    _on_redis("dramatiq", "Dramatiq, no results", "dramatiq_redis", "dramatiq", 15_000, "8 threads"),
    _on_redis("dramatiq-results", "Dramatiq", "dramatiq_redis", "dramatiq", 10_000, "8 threads, results", **_RESULTS),
    _on_redis("rq", "RQ", "rq_redis", "rq", 3000, "SimpleWorker, results"),
    _on_redis("huey", "Huey", "huey_any", "huey", 10_000, "1 thread, blocking, results"),
    _on_redis("arq", "arq", "arq_redis", "arq", 5000, "100 at once, polls each 5 ms, results"),
    _on_redis(
        "taskiq", "Taskiq, stream", "taskiq_redis", "taskiq", 8000, "100 at once, results", BENCHMARK_BROKER="stream"
    ),
    _on_redis(
        "taskiq-list", "Taskiq, list", "taskiq_redis", "taskiq", 8000, "100 at once, results", BENCHMARK_BROKER="list"
    ),
    _on_redis("saq", "SAQ", "saq_redis", "saq", 5000, "100 at once, results"),
    _bare("postgresql", "bare psycopg", "bare_postgresql"),
    _own("postgresql", 100_000),
    Contender(
        "postgresql",
        "procrastinate",
        "Procrastinate",
        "procrastinate_postgresql",
        "procrastinate",
        2000,
        "20 at once, keeps no results",
        ("procrastinate", "psycopg"),
    ),
    Contender(
        "postgresql",
        "pgqueuer",
        "PgQueuer",
        "pgqueuer_postgresql",
        "pgqueuer",
        15_000,
        "batches of 100, keeps no results",
        ("pgqueuer", "asyncpg"),
    ),
    _own("sqlite", 100_000),
    Contender("sqlite", "huey", "Huey", "huey_any", "huey", 10_000, "1 thread, fsync=True, results", ("huey",)),
)
