"""What a new job's times mean on the store's clock, and when to come back to a full queue."""

from penstock.model.job import NewJob

_SOONEST_S, _LATEST_S, _UNKNOWN_S = 0.1, 60.0, 5.0


def due_ms(job: NewJob, now_ms: int) -> int | None:
    """Give when a new job becomes ready; None if it is ready at once."""
    due = now_ms + job.delay_ms if job.run_at_ms is None else job.run_at_ms
    return due if due > now_ms else None


def expires_ms(job: NewJob, now_ms: int) -> int | None:
    """Give when a new job expires unless it has started; None if it never does."""
    return job.expires_ms if job.expires_in_ms is None else now_ms + job.expires_in_ms


def retry_after_s(overflow: int, rate: float) -> float:
    """Give when room for `overflow` jobs is likely in a queue that ends `rate` jobs per second."""
    return min(max(overflow / rate, _SOONEST_S), _LATEST_S) if rate > 0 else _UNKNOWN_S
