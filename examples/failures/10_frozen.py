"""A worker stands still for longer than its lease, another one does its job, and then it wakes and delivers too.

Watch the second result stay, and the late one be refused.
"""

import os
import signal
import time

from stage import Worker, folder, say, stage, tell, until, wait_for

from penstock import EngineUnavailable, Penstock

app = Penstock()


@app.task
def write_report(city: str) -> str:
    name = os.environ["NAME"]
    (folder() / f"{name} has begun").touch()
    until((folder() / f"{name} may end").exists, "it may end")
    if name == "Ada":
        stopped = time.monotonic()
        os.kill(os.getpid(), signal.SIGSTOP)  # as if her machine were paused here
        while time.monotonic() - stopped < 0.2:
            """The kernel takes a moment to stop all threads; when they wake, this is over."""
    return f"{city}, written by {name}"


def freeze(worker: Worker) -> None:
    """Freeze it at a moment at which it does not hold the lock of the store."""
    url = app.settings.url
    with Penstock(f"{url}{'&' if '?' in url else '?'}timeout=200ms") as impatient:
        while True:
            worker.freeze()
            try:
                impatient.queue("default").resume()
                return
            except EngineUnavailable:
                worker.thaw()
                time.sleep(0.05)


def late_results() -> int:
    """How many were refused since the store was made."""
    return app.engine.describe().late_results


def main() -> None:
    with stage(app) as place, Worker("--lease", "2s", NAME="Ada") as ada:
        before, job = late_results(), write_report.enqueue("Paris")
        until((place / "Ada has begun").exists, "Ada begins")
        freeze(ada)
        for name in ("Ada", "Bob"):
            (place / f"{name} may end").touch()
        say("Ada is frozen with the result in her hands")
        with Worker(NAME="Bob"):
            wait_for([job])
            say(f"her lease is over; result: {job.result()}")
        ada.thaw_processes()
        until(lambda: ada.has_logged("is void"), "Ada learns that her lease is over")
        say("Ada wakes and delivers")
        say(f"late results refused: {late_results() - before}; the result is still: {job.result()}")
        tell(job)


if __name__ == "__main__":
    main()
