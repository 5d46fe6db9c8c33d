"""A worker stands still for longer than its lease, another one does its job, and then it wakes and delivers too.

Watch the second result stay, and the late one be refused and counted.
"""

import os

from stage import Worker, folder, say, stage, tell, until

from penstock import EngineUnavailable, Penstock

app = Penstock()


@app.task
def write_report(city: str) -> str:
    (folder() / f"{os.environ['NAME']} has begun").touch()
    until((folder() / f"{os.environ['NAME']} may end").exists, "it may end")
    return f"{city}, written by {os.environ['NAME']}"


def freeze(worker: Worker) -> None:
    """Freeze it at a moment at which it does not hold the lock of the store."""
    while True:
        worker.freeze()
        try:
            app.queue("default").resume()
            return
        except EngineUnavailable:
            worker.thaw()


def late_results() -> int:
    """How many were refused since the store was made."""
    return app.engine.describe().late_results


def main() -> None:
    with stage(app) as place, Worker("--lease", "2s", NAME="Ada") as ada:
        before, job = late_results(), write_report.enqueue("Paris")
        until((place / "Ada has begun").exists, "Ada begins")
        freeze(ada)
        say("Ada is frozen in the middle of the job")
        with Worker(NAME="Bob"):
            until((place / "Bob has begun").exists, "Bob begins")
            say("her lease is over, and Bob has the job")
            (place / "Bob may end").touch()
            say(f"result: {job.result(60)}")
        (place / "Ada may end").touch()
        ada.thaw_processes()
        say("Ada wakes in the middle of the job, and ends it too")
        refused = until(lambda: late_results() - before, "her result is refused")
        say(f"late results refused: {refused}; the result is still: {job.result()}")
        tell(job)


if __name__ == "__main__":
    main()
