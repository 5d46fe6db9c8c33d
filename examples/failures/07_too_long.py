"""Jobs run longer than they may: one lets itself be interrupted, one does not and is killed.

Watch the first end at its timeout, and the second five seconds later, with the process that it ran in.
"""

import re
import time

from stage import Worker, follow, stage

from penstock import Penstock

app = Penstock()


@app.task(timeout="500ms", max_attempts=2, backoff=0)
def ask_slow_server() -> None:
    while True:
        time.sleep(0.05)


@app.task(runner="process", timeout="500ms", max_attempts=1)
def match(text: str) -> bool:
    return re.fullmatch(r"(a+)+", text) is not None  # takes ages, and nothing in Python can interrupt it


def main() -> None:
    with stage(app), Worker():
        stubborn = match.enqueue("a" * 60 + "b")
        follow(ask_slow_server.enqueue())
        follow(stubborn)


if __name__ == "__main__":
    main()
