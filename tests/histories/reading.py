"""Reads a history: the lines that all processes left, and what the store shows when all is over."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from penstock.engine import Engine, Filter
from penstock.model.job import Job
from tests.histories.history import NEVER, Final, History, Op, Stored
from tests.histories.watching import FOLDER, Answered, Asked, text_of

FINAL = "final.json"
#: Times, in ns of CLOCK_MONOTONIC, at which the clock of the store was set: one a line.
JUMPS = "jumps"

_PAGE = 1000
_read_line = msgspec.json.Decoder(Asked | Answered).decode


def read(folder: Path) -> History:
    """Read a history that was kept."""
    final = msgspec.json.decode((folder / FINAL).read_bytes(), type=Final)
    return History(read_ops(folder), final, map(int, (folder / JUMPS).read_text().split()))


def read_ops(folder: Path) -> list[Op]:
    return [op for file in sorted((folder / FOLDER).iterdir()) for op in _ops_of(file)]


def _ops_of(file: Path) -> Iterator[Op]:
    """Put what was asked and what was answered together; what was not answered is unknown."""
    waiting: dict[int, Asked] = {}
    first_asked: dict[tuple[str, int], int] = {}
    for line in _lines(file):
        if isinstance(line, Asked):
            waiting[line.call] = line
            continue
        asked = waiting.pop(line.call)
        t0 = first_asked.setdefault((asked.process, asked.beat), asked.t0) if asked.beat else asked.t0
        for outcome, act in line.told:
            yield Op(t0, NEVER if outcome == "unknown" else line.t1, asked.process, outcome, act)
    for asked in waiting.values():
        for act in asked.acts:
            yield Op(asked.t0, NEVER, asked.process, "unknown", act)


def _lines(file: Path) -> Iterator[Asked | Answered]:
    """Give the lines of a process; its kill may have torn the last one."""
    for line in file.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield _read_line(line)


def see(engine: Engine) -> Final:
    """Look at a store that nobody works on any more."""
    stored, recounted = {}, Counter[str]()
    for job in _jobs(engine):
        stored[job.id] = _stored(job)
        recounted[f"{job.queue} {job.task} {job.state}"] += 1
        recounted[f"{job.queue} unfinished"] += not job.state.is_final
    queues = engine.queues()
    return Final(
        stored,
        {f"{row.queue} {row.task} {state}": count for row in engine.counts() for state, count in row.states.items()}
        | {f"{queue.name} unfinished": queue.unfinished for queue in queues},
        dict(recounted),
        sum(view.running for view in engine.workers()),
        {queue.name: queue.max_jobs for queue in queues if queue.max_jobs is not None},
    )


def keep(folder: Path, final: Final, jumps: Iterable[int]) -> None:
    """Keep beside the lines what the store showed, and when its clock was set."""
    (folder / FINAL).write_bytes(msgspec.json.encode(final))
    (folder / JUMPS).write_text("".join(f"{jump}\n" for jump in jumps))


def _jobs(engine: Engine) -> Iterator[Job]:
    page = engine.find(Filter(limit=_PAGE))
    yield from page.jobs
    while page.next is not None:
        page = engine.find(Filter(limit=_PAGE, before=page.next))
        yield from page.jobs


def _stored(job: Job) -> Stored:
    return Stored(
        job.id,
        job.state,
        job.claim_number,
        job.counters,
        text_of(job.result),
        "" if job.error is None else str(job.error),
        job.details.idempotency_key or "",
        "" if job.details.unique is None else job.details.unique.key,
        job.queue,
    )
