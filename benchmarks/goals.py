"""What penstock's own figures are held against, for each kind of store."""

from dataclasses import replace

from benchmarks.figures import Figure, Goal, at_least, at_most

__all__ = ["held_against_its_goal"]

_EVERYWHERE = {
    "drain.loop_to_thread": at_least(0.7),
    "drain.two_to_one": at_least(1.0),
    "drain.spin_two_to_one": at_least(1.6),
    "latency.start": at_most(0.5),
    "idle.cpu": at_most(0.5),
    "idle.memory": at_most(70),
    "recovery.process.p99": at_most(1000),
    "recovery.child.p99": at_most(1000),
    "backlog.1000000.ratio": at_least(0.9),
    "backlog.history.ratio": at_least(0.9),  # it changes nothing; a tenth is left to noise
}
_GOALS: dict[str, dict[str, Goal]] = {
    "sqlite": {
        **_EVERYWHERE,
        "enqueue.one_to_bare": at_least(0.55),
        "enqueue.threads.64": at_least(15_000),
        "enqueue.coroutines.1000": at_least(40_000),
        "enqueue.many": at_least(60_000),
        "drain.thread.1": at_least(30_000),
        "drain.to_huey.default": at_least(5),
        "drain.to_huey.fsync": at_least(5),
        "latency.penstock.p50": at_most(1.5),
        "latency.penstock.p99": at_most(6.0),
    },
    "redis": {
        **_EVERYWHERE,
        "enqueue.one_to_bare": at_least(0.6),
        "enqueue.coroutines.1000": at_least(40_000),
        "enqueue.many": at_least(60_000),
        "drain.thread.1": at_least(40_000),
        "latency.penstock.p50": at_most(0.8),
        "latency.penstock.p99": at_most(2.0),
        "size.waiting": at_most(400),
    },
    "postgresql": {
        **_EVERYWHERE,
        "enqueue.one_to_bare": at_least(0.6),
        "enqueue.coroutines.1000": at_least(25_000),
        "enqueue.many": at_least(40_000),
        "drain.thread.1": at_least(30_000),
        "latency.penstock.p50": at_most(1.5),
        "latency.penstock.p99": at_most(5.0),
        "horizon.idle.growth": at_most(2.0),
        "horizon.enqueued.growth": at_most(2.0),
        "horizon.idle.rate": at_least(4900),
        "horizon.enqueued.rate": at_least(4900),
    },
}


def held_against_its_goal(figure: Figure, store: str) -> Figure:
    """Give the figure with the goal it has on a kind of store, if it has one."""
    return replace(figure, goal=_GOALS[store].get(figure.key))
