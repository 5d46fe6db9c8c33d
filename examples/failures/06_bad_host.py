"""A disk is full: that is no fault of the job, so it goes back free of charge, and the worker goes out of service.

Watch worker 1 end with status 4, its successor claim nothing, and worker 2, which has another disk, do the rest.
"""

import os
from pathlib import Path

from stage import Worker, folder, say, stage, tell, until, wait_for

from penstock import Penstock

app = Penstock()


def disk() -> Path:
    return folder() / os.environ["DISK"]


@app.health_check
def disk_has_room() -> None:
    disk().write_bytes(b"test")


@app.task
def keep(photo: str) -> str:
    disk().write_bytes(photo.encode())
    return f"{photo} is on {disk().name}"


def main() -> None:
    with stage(app) as place:
        for name in ("disk 1", "disk 2"):
            (place / name).symlink_to("/dev/null")  # a disk that always has room
        with Worker(DISK="disk 1") as first:
            photo_1 = keep.enqueue("photo 1")
            wait_for([photo_1])
            say(photo_1.result())
            (place / "disk 1").unlink()
            (place / "disk 1").symlink_to("/dev/full")
            photo_2 = keep.enqueue("photo 2")
            say(f"disk 1 is full, and {first.name} has ended with status {first.wait()}")
            tell(photo_2)
        with Worker("--when-unfit", "wait", DISK="disk 1") as again:
            unfit = until(lambda: [view.info.unfit for view in app.workers() if view.info.unfit], "it says why")
            say(f"{again.name} claims nothing: {unfit[0]}")
            with Worker(DISK="disk 2"):
                others = keep.enqueue_many([(f"photo {number}",) for number in range(3, 6)])
                wait_for(others)
                for photo in others:
                    say(photo.result())
        seen = photo_2.info()
        avoid, since_ms = seen.details.avoid[0], seen.history[0].at_ms
        worker_s, machine_s = (avoid.until_ms - since_ms) / 1000, (avoid.boot_until_ms - since_ms) / 1000
        say(f"photo 2 passes {first.name} by for {worker_s:.0f} s, and this whole machine for {machine_s:.0f} s")


if __name__ == "__main__":
    main()
