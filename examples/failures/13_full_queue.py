"""Jobs come faster than they are done: the full queue refuses them, and says when there will be room.

Watch the producer be told how long to wait, and all orders be done in the end.
"""

import time

from stage import Worker, say, stage, wait_for

from penstock import JobHandle, Penstock, QueueFull

app = Penstock()
ORDERS = 15


@app.task(queue="reports")
def write_report(order: int) -> int:
    time.sleep(0.1)
    return order


def enqueue(order: int) -> tuple[JobHandle[int], int]:
    """Give the job, and how often it was refused before."""
    refused = 0
    while True:
        try:
            return write_report.enqueue(order), refused
        except QueueFull as full:
            if not refused:
                say(f"order {order} is refused: {full}")
            refused += 1
            time.sleep(full.retry_after)


def main() -> None:
    with stage(app), Worker("--slots", "2"):
        app.queue("reports").limit(max_jobs=10)
        taken = [enqueue(order) for order in range(ORDERS)]
        say(f"all {len(taken)} orders are taken; refusals: {sum(refused for _, refused in taken)}")
        wait_for(job for job, _ in taken)
        say(f"{sum(job.state() == 'succeeded' for job, _ in taken)} of {len(taken)} are done")
        app.queue("reports").limit(max_jobs=None)


if __name__ == "__main__":
    main()
