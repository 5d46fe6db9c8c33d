"""A process that forks supervisors and producers on request: each is a process of its own, but need not import anew.

One line of JSON asks for one; the answer is its pid. All end with the nursery.
"""

import json
import os
import random
import signal
import sys
import time
from typing import Any, NoReturn

from penstock.model.errors import EngineUnavailable, QueueFull
from penstock.settings import load
from penstock.task import Task
from penstock.worker.channel import die_with_parent
from penstock.worker.entry import run
from tests.histories.customers import operate, shop
from tests.histories.errands import app
from tests.torture import mines
from tests.torture.jobs import TASKS
from tests.torture.records import ACCEPTED, ATTEMPTED, ENOUGH, QUEUES, Record, folder

SIZES = (1, 1, 1, 2, 10, 50, 150)
SHARES = (30, 30, 1, 1)
#: Most jobs sleep not at all, some long enough to be found at it.
SECONDS = (0.0, 0.0, 0.0, 0.0, 0.0, 0.001, 0.01, 0.1)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    nursery = os.getpid()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            _live(order, nursery)
        os.write(1, f"{pid}\n".encode())


def _live(order: dict[str, Any], nursery: int) -> NoReturn:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        die_with_parent(nursery)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(2, 1)
        dice = random.Random(f"{order['seed']} {os.getpid()}")
        if "url" in order:
            app.redirect(order["url"])
        if order["role"] in mines.ODDS:
            mines.lay(order["role"], dice)
        match order["role"]:
            case "supervisor":
                os.environ[mines.SEED] = order["seed"]
                run(load(order["settings"], {}, None))
            case "last worker":
                run(load(order["settings"], {}, None))
            case "producer":
                produce(dice)
            case "customer":
                shop(dice)
            case "operator":
                operate(dice)
    finally:
        os._exit(0)


def produce(dice: random.Random) -> None:
    """Enqueue batches, each written down before, and after the store has accepted it."""
    attempted, accepted, number = Record(ATTEMPTED), Record(ACCEPTED), 0
    while not (folder() / ENOUGH).exists():
        number += 1
        size, queue = dice.choice(SIZES), _queue_with_room(dice)
        batch = f"{os.getpid()}-{number}"
        task: Task[..., str] = dice.choices(TASKS, SHARES)[0]
        calls = [(f"{batch}.{index}", dice.choice(SECONDS)) for index in range(size)]
        attempted.add(os.getpid(), batch, size)
        try:
            _enqueue(task, queue, calls)
        except (QueueFull, EngineUnavailable) as error:
            print(f"producer {os.getpid()}: {error}", file=sys.stderr, flush=True)
        else:
            accepted.add(batch)


def _queue_with_room(dice: random.Random) -> str:
    """Wait until one is not nearly full; another producer may fill it meanwhile."""
    while True:
        info = app.queue(dice.choice(QUEUES)).info()
        if info.max_jobs is None or info.unfinished + max(SIZES) <= info.max_jobs:
            return info.name
        time.sleep(0.01)


def _enqueue(task: Task[..., str], queue: str, calls: list[tuple[str, float]]) -> None:
    bound = task.using(queue=queue)
    if len(calls) == 1:
        bound.enqueue(*calls[0])
    else:
        bound.enqueue_many(calls)


if __name__ == "__main__":
    main()
