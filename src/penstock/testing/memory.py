"""A store within the process, for tests."""

from penstock.engine import Clock, Engine
from penstock.engines.open import open_engine

__all__ = ["memory_engine"]


def memory_engine(clock: Clock | None = None) -> Engine:
    """Open an empty store within this process; it keeps the rules of the others and is gone with its last user.

    Args:
        clock: what it reads the time from, as a `TurnedClock`; the machine's own clocks if not given.

    >>> from penstock import Penstock
    >>> from penstock.testing import TurnedClock, run_jobs
    >>> clock = TurnedClock()
    >>> app = Penstock(engine=memory_engine(clock))
    >>> @app.task(name="shop.remind")
    ... def remind(order_id: int) -> str:
    ...     return f"reminded {order_id}"
    >>> job = remind.using(delay="1h").enqueue(7)
    >>> run_jobs(app), job.state()
    (0, <State.SCHEDULED: 'scheduled'>)
    >>> clock.turn(3_600_000)
    >>> run_jobs(app), job.result()
    (1, 'reminded 7')
    """
    return open_engine("memory://", clock=clock)
