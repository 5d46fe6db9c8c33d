"""A whole worker is killed with kill -9, as when its machine loses power: its job runs again elsewhere.

Watch how long that takes: what is left of the lease of the killed worker, and nobody has to do anything.
"""

import os
import time

from stage import Worker, folder, follow, say, stage, until

from penstock import Penstock

app = Penstock()


@app.task
def write_report(city: str) -> str:
    (folder() / f"{os.environ['NAME']} has begun").touch()
    if os.environ["NAME"] == "Ada":
        time.sleep(600)
    return f"{city}, written by {os.environ['NAME']}"


def main() -> None:
    with stage(app) as place, Worker("--lease", "3s", NAME="Ada") as ada:
        job = write_report.enqueue("Paris")
        until((place / "Ada has begun").exists, "Ada begins")
        with Worker(NAME="Bob"):
            until(lambda: len(app.workers()) == 2, "Bob is there")
            ada.kill()
            killed_at = time.monotonic()
            say("Ada is killed in the middle of the job")
            follow(job)
            say(f"result: {job.result()}; that took {time.monotonic() - killed_at:.1f} s of a lease of 3 s")


if __name__ == "__main__":
    main()
