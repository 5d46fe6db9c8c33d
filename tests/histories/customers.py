"""Who asks for errands, and an operator who meddles with them; each is a process until there is enough."""

import itertools
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from penstock.engine import Alteration, Bury, Cancel, Delete, Edit, Filter, Kick, Reschedule, Upgrade
from penstock.model.errors import EngineUnavailable, JobRefused
from penstock.model.job import Unique
from tests.histories import errands
from tests.torture.records import ENOUGH, ERRANDS, folder

#: Longest pauses, so that neither takes the machine from the others.
CUSTOMERS_PAUSE_S, OPERATORS_PAUSE_S = 0.03, 0.1


def shop(dice: random.Random) -> None:
    """Ask for errands of all kinds."""
    names = (f"{os.getpid()}-{number}" for number in itertools.count(1))
    _go_on(dice, CUSTOMERS_PAUSE_S, lambda: dice.choices(list(_KINDS), list(_KINDS.values()))[0](dice, next(names)))


def operate(dice: random.Random) -> None:
    """Meddle with the newest errands."""
    engine = errands.app.engine

    def meddle() -> None:
        jobs = engine.find(Filter(queue=ERRANDS, limit=40)).jobs
        if jobs:
            engine.alter([dice.choice(jobs).id for _ in range(dice.randint(1, 3))], _alteration(dice))

    _go_on(dice, OPERATORS_PAUSE_S, meddle)


def _go_on(dice: random.Random, pause_s: float, act: Callable[[], Any]) -> None:
    while not (folder() / ENOUGH).exists():
        try:
            act()
        except (JobRefused, EngineUnavailable) as error:
            print(f"customer {os.getpid()}: {error}", file=sys.stderr, flush=True)
        time.sleep(dice.uniform(0, pause_s))


def _ask_plain(dice: random.Random, name: str) -> None:
    delay, expires = dice.choice([None, 0.1]), dice.choice([None, 0.2])
    calls = [(f"{name}.{index}",) for index in range(dice.choice([1, 2, 5]))]
    errands.plain.using(delay=delay or 0, expires=expires).enqueue_many(calls)


def _ask_with_key(dice: random.Random, name: str) -> None:
    until = dice.choice(["started", "ended"])
    key = Unique(f"{dice.choice('klmnopqr')} {until}", until, clash=dice.choice(["keep", "replace", "refuse"]))
    errands.plain.using(unique=key).enqueue(name)


def _ask_again(_: random.Random, __: str) -> None:
    """Ask for what others may be asking for at the same moment."""
    order = f"order {time.monotonic_ns() // 50_000_000}"
    errands.plain.using(idempotency_key=order).enqueue(order)


_KINDS: dict[Callable[[random.Random, str], Any], int] = {
    _ask_plain: 5,
    _ask_with_key: 6,
    _ask_again: 4,
    lambda dice, name: errands.fail.enqueue(name, dice.randint(1, 3)): 3,
    lambda _, name: errands.fall.enqueue(name): 2,
    lambda dice, name: errands.affect.enqueue(name, f"key {dice.randint(1, 2000)}"): 4,
    lambda _, name: errands.bear.enqueue(name): 3,
    lambda _, name: errands.linger.enqueue(name): 1,
    lambda dice, name: dice.random() < 0.1 and errands.crash.enqueue(name, dice.randint(1, 2)): 1,
}


def _alteration(dice: random.Random) -> Alteration:
    several: list[Alteration] = [Cancel(), Cancel(), Kick(), Kick(), Upgrade(), Upgrade()]
    several += [Kick(delay_ms=50), Kick(trial=True), Edit(priority=dice.randint(0, 3)), Reschedule(delay_ms=100)]
    return dice.choice([*several, Bury(), Delete()])
