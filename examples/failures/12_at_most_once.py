"""A job that must never run twice loses its process: it is buried, not repeated.

Watch its code begin once, although it could be run again.
"""

import os

from stage import Worker, folder, follow, say, stage

from penstock import Penstock

app = Penstock()


@app.task(max_attempts=1, max_crashes=0)
def launch(rocket: str) -> None:
    with (folder() / "launches").open("a") as lines:
        lines.write(f"{rocket}\n")
    os._exit(1)  # stands for a crash


def main() -> None:
    with stage(app) as place, Worker():
        follow(launch.enqueue("Ariane"))
        say(f"launches begun: {len((place / 'launches').read_text().splitlines())}")


if __name__ == "__main__":
    main()
