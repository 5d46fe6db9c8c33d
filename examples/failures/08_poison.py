"""A job takes down every process that runs it: from its second attempt on it runs alone, and after three it is buried.

Watch the jobs that were in the same process at its first crash succeed all the same.
"""

import ctypes
import time

from stage import Worker, follow, say, stage, wait_for

from penstock import Penstock

app = Penstock()


@app.task
def resize(picture: str) -> str:
    print(f"reading {picture}", flush=True)
    if picture == "broken.png":
        ctypes.string_at(0)  # stands for a fault in a C extension
    time.sleep(0.2)
    return f"{picture} is resized"


def main() -> None:
    with stage(app), Worker():
        good = resize.enqueue_many([(f"{number}.png",) for number in range(4)])
        poison = resize.enqueue("broken.png")
        follow(poison)
        evidence = poison.info().history[-1].evidence
        say(f"last line that it printed: {evidence and evidence.log.strip()}")
        wait_for(good)
        done = sum(job.state() == "succeeded" for job in good)
        shared = sum(job.info().counters.crashes for job in good)
        say(f"{done} of {len(good)} others succeeded; {shared} shared its first crash, and then ran alone")


if __name__ == "__main__":
    main()
