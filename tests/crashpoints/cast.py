"""A process that keeps a worker, a producer and an operator alive: whoever dies at a point is replaced at once."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, NoReturn

from penstock.handle import JobHandle
from penstock.settings import load
from penstock.worker.channel import die_with_parent
from penstock.worker.entry import run
from tests.crashpoints.points import OPERATOR, PRODUCER, SUPERVISOR, play, reach
from tests.crashpoints.told import ASKED, FAILED, SAID, SETTINGS, connected
from tests.crashpoints.trade import app, echo, errand, frail, plain
from tests.torture.records import ACCEPTED, ATTEMPTED, ENOUGH, Record, folder, store_url

MOST_WAITING = 16
attempted, accepted = Record(ATTEMPTED), Record(ACCEPTED)
asked, said = Record(ASKED), Record(SAID)


def main() -> None:
    living: dict[int, str] = {}
    while not _is_enough():
        for role in _ROLES.keys() - living.values():
            living[_fork(role)] = role
        _collect(living)
    for pid, role in living.items():
        if role == SUPERVISOR:
            os.kill(pid, signal.SIGTERM)
    while living:
        _collect(living)


def _collect(living: dict[int, str]) -> None:
    """Wait a moment for somebody to end, and write down whoever ended otherwise than it should."""
    pid, status = os.waitpid(-1, os.WNOHANG)
    if not pid:
        time.sleep(0.01)
        return
    role = living.pop(pid)
    if status not in (0, signal.SIGKILL):
        Record(FAILED).add(role, status)


def _is_enough() -> bool:
    return (folder() / ENOUGH).exists()


def _fork(role: str) -> int:
    cast = os.getpid()
    pid = os.fork()
    if not pid:
        _live(role, cast)
    return pid


def _live(role: str, cast: int) -> NoReturn:
    status = 1
    try:
        die_with_parent(cast)
        play(role)
        _ROLES[role]()
        status = 0
    except Exception as error:
        print(f"{role}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        raise
    finally:
        os._exit(status)


def work() -> None:
    run(load(SETTINGS, {}, None))


# -- producer ---------------------------------------------------------------------------------------------------------


def produce() -> None:
    number = 0
    while not _is_enough():
        number += 1
        name = f"{os.getpid()}-{number}"
        _ask([name], lambda name=name: errand.enqueue(name))  # type: ignore[misc]
        many = [f"{name}.{index}" for index in range(3)]
        _ask(many, lambda many=many: echo.enqueue_many([(one,) for one in many]))  # type: ignore[misc]
        if not store_url().startswith("redis"):
            _ask([f"{name}.within"], lambda name=name: _add_within(f"{name}.within"))  # type: ignore[misc]
        while app.queue("errands").info().unfinished > MOST_WAITING and not _is_enough():
            time.sleep(0.02)


def _ask(names: list[str], enqueue: Callable[[], object]) -> None:
    """Enqueue a batch, written down before, and after the store has accepted it."""
    attempted.add(*names)
    enqueue()
    accepted.add(*names)


def _add_within(name: str) -> None:
    """Enqueue in a transaction of one's own, in which an order of the same name is written."""
    with closing(connected()) as db:
        cursor = db.cursor()
        cursor.execute(f"INSERT INTO orders VALUES ('{name}')")
        echo.using(connection=db).enqueue(name)
        reach("before", "commit of what was added within")
        db.commit()
        reach("after", "commit of what was added within")


# -- operator ---------------------------------------------------------------------------------------------------------


def operate() -> None:
    number = 0
    while not _is_enough():
        number += 1
        for act, alter in _ACTS.items():
            name = f"{os.getpid()}-{number}-{act}"
            job = _a_job_to_alter(act, name)
            if job is None:
                return
            asked.add(act, name)
            alter(job, name)
            said.add(act, name)
            if act == "edit":
                app.kick(job)


def _a_job_to_alter(act: str, name: str) -> "JobHandle[Any] | None":
    """Give a job that waits; to be upgraded, one whose fallback has done it, None if nobody runs it any more."""
    handles: list[JobHandle[Any]] = []
    waiting = frail.using(priority=100) if act == "upgrade" else plain.using(delay="1h")
    _ask([name], lambda: handles.append(waiting.enqueue(name)))
    job = handles[0]
    if act == "upgrade":
        while not job.state().is_final and not _is_enough():
            time.sleep(0.02)
        (folder() / f"mended-{name}").touch()
    return None if _is_enough() else job


_ACTS: dict[str, Callable[[JobHandle[Any], str], object]] = {
    "cancel": lambda job, _: app.cancel(job),
    "kick": lambda job, _: app.kick(job),
    "upgrade": lambda job, _: app.upgrade(job),
    "edit": lambda job, name: app.edit(job, args=(f"{name}.edited",)),
    "reschedule": lambda job, _: app.reschedule(job, delay=0.05),
    "bury": lambda job, _: app.bury(job),
    "delete": lambda job, _: app.delete(job),
}

_ROLES: dict[str, Callable[[], None]] = {SUPERVISOR: work, PRODUCER: produce, OPERATOR: operate}

if __name__ == "__main__":
    main()
