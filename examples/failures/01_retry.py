"""A task that fails is run again after growing pauses; in the end a simpler task does the job.

Watch the pauses double, and the result say that it is not the real one.
"""

from itertools import pairwise

from stage import Worker, follow, say, stage

from penstock import Exponential, Penstock

app = Penstock()


@app.task
def last_known_rate(currency: str) -> float:
    return {"EUR": 1.0, "USD": 1.1}[currency]


@app.task(max_attempts=3, backoff=Exponential(0.5, jitter="none"), fallback=last_known_rate)
def current_rate(currency: str) -> float:
    raise ConnectionError(f"the bank does not give a rate for {currency}")


def main() -> None:
    with stage(app), Worker():
        job = current_rate.enqueue("USD")
        follow(job)
        failures = job.info().history
        pauses = [(later.at_ms - sooner.at_ms) / 1000 for sooner, later in pairwise(failures)]
        say(f"seconds between its {len(failures)} failures: {', '.join(f'{pause:.1f}' for pause in pauses)}")
        say(f"result {job.result()}, degraded: it is by {job.degraded}")


if __name__ == "__main__":
    main()
