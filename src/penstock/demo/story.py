"""The demo from beginning to end: enqueue, work, kill, read, count again without a queue, compare."""

import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct
from rich.console import Console

from penstock.demo.casualty import Casualty, Toll, kill_a_process, toll
from penstock.demo.counting import UNREADABLE, FileCount, balance, count, total
from penstock.demo.display import (
    Meter,
    compare,
    measured,
    plural,
    say,
    tell_balance,
    tell_buried,
    tell_flaky,
    tell_kept,
    tell_toll,
)
from penstock.demo.hired import PROCESSES, DemoFailed, HiredWorker
from penstock.demo.sources import Found, Trouble, find_sources, make_trouble
from penstock.demo.tasks import QUEUE, app, count_file, count_locked_file
from penstock.model.job import Job, ProcessId
from penstock.model.states import FINAL, State

__all__ = ["run"]

LOOK_EVERY_S = 0.05
STALLED_AFTER_S = 60.0


class Run(Struct, frozen=True):
    """What the jobs came to."""

    jobs: list[Job]
    toll: Toll
    took_s: float


def run(folder: Path, console: Console, *, keep: bool) -> int:
    """Count the source files below a folder by jobs and without, and show that both came to the same.

    Args:
        keep: leave the store behind and say how to look at it.

    Returns:
        0 if the sums are equal, else 1.

    Raises:
        DemoFailed: there is nothing to count, or the worker could not do its work.
    """
    say(console, f"looking for Python files in {folder} ...")
    found = _found(folder)
    left_out = f"; {found.left_out:,} more cannot be read and are left out" if found.left_out else ""
    say(console, f"{plural(len(found.files), 'file')}{left_out}")
    say(console, "added to have some trouble: an unreadable file, and a lock left behind")
    with _place(keep) as place:
        trouble = make_trouble(place)
        done = _by_jobs(found.files, trouble, place, console)
        counts, plain_s = _one_after_another((*found.files, trouble.unreadable), console)
        status = _account(done, found.files, counts, plain_s, console)
        if keep:
            tell_kept(console, _url(place), _in_state(done.jobs, State.BURIED), place)
    return status


def _found(folder: Path) -> Found:
    found = find_sources(folder)
    if found.files:
        return found
    if found.left_out:
        raise DemoFailed(
            f"None of the .py files in {folder} can be read ({found.left_out:,} were found); give another folder."
        )
    raise DemoFailed(f"There is no .py file in {folder}; give a folder that has some.")


@contextmanager
def _place(keep: bool) -> Iterator[Path]:
    """Give a folder for the store; nothing stays in this program's application when it is gone."""
    place = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    try:
        yield place
    finally:
        app.close()
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def _url(place: Path) -> str:
    return f"sqlite:///{place / 'demo.db'}"


def _by_jobs(files: Sequence[Path], trouble: Trouble, place: Path, console: Console) -> Run:
    app.redirect(_url(place))
    begun = time.monotonic()
    jobs = _enqueue(files, trouble)
    say(console, f"{jobs:,} jobs, one for each file, enqueued in {time.monotonic() - begun:.2f} s")
    say(console, f"the store is {_url(place)}")
    say(console, f"a worker with {PROCESSES} processes starts")
    with HiredWorker(_url(place), place) as worker, measured(console, "by jobs", jobs) as meter:
        casualty, process = _follow(worker, jobs, meter, console)
        took_s = time.monotonic() - begun
    ended = app.find(queue=QUEUE, limit=2 * jobs)
    return Run(ended, toll(casualty, process, ended), took_s)


def _enqueue(files: Sequence[Path], trouble: Trouble) -> int:
    """Store a job for each file and answer how many; those that mean trouble come first."""
    first, *others = map(str, files)
    count_locked_file.using(priority=1).enqueue(first, str(trouble.lock))
    count_file.using(priority=1).enqueue(str(trouble.unreadable))
    count_file.enqueue_many([(path,) for path in others])
    return len(files) + 1


def _follow(worker: HiredWorker, jobs: int, meter: Meter, console: Console) -> tuple[Casualty, ProcessId]:
    """Wait until all jobs have ended; half way, kill one of the processes. Answers whom it met."""
    casualty: Casualty | None = None
    looks = _looks(worker)
    while True:
        ended = next(looks)
        meter.show(ended)
        if casualty is None and 2 * ended >= jobs:
            casualty = kill_a_process(worker, app)
            if casualty is not None:
                say(console, f"process {casualty.pid} killed with SIGKILL at {ended:,} of {jobs:,} jobs", "yellow")
        if casualty is not None and ended == jobs:
            process = casualty.name(app)
            if process is not None:
                return casualty, process


def _looks(worker: HiredWorker) -> Iterator[int]:
    """Give again and again how many jobs have ended.

    Raises:
        DemoFailed: the worker has ended, or nothing has moved for a minute.
    """
    before, moved = -1, time.monotonic()
    while True:
        worker.check()
        ended = _ended()
        yield ended
        if ended != before:
            before, moved = ended, time.monotonic()
        elif time.monotonic() - moved > STALLED_AFTER_S:
            raise DemoFailed(f"Nothing has moved for {STALLED_AFTER_S:.0f} s. {worker.last_words()}")
        time.sleep(LOOK_EVERY_S)


def _ended() -> int:
    counts = app.counts()
    return sum(counts[QUEUE][state] for state in FINAL) if QUEUE in counts else 0


def _one_after_another(files: Sequence[Path], console: Console) -> tuple[list[FileCount], float]:
    """Count the same files here, without a queue; answers the counts and how many seconds they took."""
    begun = time.monotonic()
    counts: list[FileCount] = []
    with measured(console, "one after another", len(files)) as meter, warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        for number, file in enumerate(files, start=1):
            try:
                counts.append(count(file))
            except UNREADABLE:
                continue
            finally:
                meter.show(number)
    return counts, time.monotonic() - begun


def _account(done: Run, files: Sequence[Path], plain: Sequence[FileCount], plain_s: float, console: Console) -> int:
    """Show what happened and compare; answers the exit status."""
    succeeded = _in_state(done.jobs, State.SUCCEEDED)
    buried = _in_state(done.jobs, State.BURIED)
    counts: list[FileCount] = [app.decode_result(job.task, job.result or b"null") for job in succeeded]
    ours, others = total(counts, unreadable=len(buried)), total(plain, unreadable=len(files) + 1 - len(plain))
    tell_toll(console, done.toll)
    tell_flaky(console, succeeded)
    tell_buried(console, buried)
    compare(console, ours, others, done.took_s, plain_s)
    found = balance(map(str, files), counts, plain)
    equal = found.even and ours == others
    tell_balance(console, found, ours, equal=equal)
    return 0 if equal else 1


def _in_state(jobs: Sequence[Job], state: State) -> list[Job]:
    return [job for job in jobs if job.state is state]
