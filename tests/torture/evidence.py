"""What is left when all is over: the store as it shows itself, beside what jobs and producers wrote down."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec import Struct

from penstock.engine import Engine, Filter
from penstock.model.codec import decode_envelope
from penstock.model.job import Job
from tests.torture.records import ACCEPTED, ATTEMPTED, EFFECTS, ERRANDS, Trail

_PAGE = 1000


class Ended(Struct, frozen=True):
    """One ended job: the claim that ended it, and the claim that its result names."""

    id: str
    state: str
    claim_number: int
    result: str


class Evidence:
    """Read once, when no process is left that could change anything.

    Attributes:
        ended: ended jobs by the name that their producer gave them; `unfinished` are the names of the others. Errands,
            which need not succeed, are only counted.
        names: how many jobs were stored under each name.
        ran: claims under which the code of each job came to its end, as its result spells them.
        counted, recounted: jobs by queue, task and state, as the store kept count and as they are.
        held: claims that somebody holds.
    """

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.ended: dict[str, Ended] = {}
        self.unfinished: list[str] = []
        self.names: Counter[str] = Counter()
        self.recounted: Counter[tuple[str, str, str]] = Counter()
        for job in _jobs(engine):
            self._read(job)
        self.counted = {
            (row.queue, row.task, state.value): count for row in engine.counts() for state, count in row.states.items()
        }
        self.workers = [view.info.id for view in engine.workers()]
        self.held = sum(view.running for view in engine.workers())
        self._read_trails(folder)

    def _read(self, job: Job) -> None:
        self.recounted[job.queue, job.task, job.state.value] += 1
        if job.queue == ERRANDS:
            return
        name = msgspec.json.decode(decode_envelope(job.envelope, job.crc).args)[0]
        self.names[name] += 1
        if not job.state.is_final:
            self.unfinished.append(name)
            return
        result = msgspec.json.decode(job.result) if job.result else ""
        self.ended[name] = Ended(job.id, job.state.value, job.claim_number, result)

    def _read_trails(self, folder: Path) -> None:
        self.attempted = {batch: (int(pid), int(size)) for pid, batch, size in Trail(folder / ATTEMPTED).news()}
        self.accepted = {batch for (batch,) in Trail(folder / ACCEPTED).news()}
        self.began: Counter[str] = Counter()
        self.ran: defaultdict[str, set[str]] = defaultdict(set)
        for stage, id, number, token, _ in Trail(folder / EFFECTS).news():
            if stage == "began":
                self.began[id] += 1
            else:
                self.ran[id].add(f"{number}:{token}")

    def accepted_names(self) -> set[str]:
        return {name for batch in self.accepted for name in self.names_of(batch)}

    def names_of(self, batch: str) -> list[str]:
        return [f"{batch}.{index}" for index in range(self.attempted[batch][1])]

    def stored_unacknowledged(self) -> set[str]:
        """Give the batches that are stored although their producer never heard of it."""
        return {batch for batch in self.attempted.keys() - self.accepted if f"{batch}.0" in self.ended}

    def torn(self) -> list[str]:
        """Give the batches of which a part is stored."""
        return [batch for batch in self.attempted if len({name in self.ended for name in self.names_of(batch)}) > 1]

    def stale(self) -> list[Ended]:
        """Give the jobs whose result comes from another claim than their last, or from one whose code never ended."""
        return [
            job
            for job in self.ended.values()
            if job.result.partition(":")[0] != str(job.claim_number) or job.result not in self.ran[job.id]
        ]


def _jobs(engine: Engine) -> Iterator[Job]:
    page = engine.find(Filter(limit=_PAGE))
    yield from page.jobs
    while page.next is not None:
        page = engine.find(Filter(limit=_PAGE, before=page.next))
        yield from page.jobs


def damage_of_file(path: Path) -> list[str]:
    """Give what SQLite finds wrong with a file, and rows that should not have been left."""
    with closing(sqlite3.connect(path)) as db:
        found = [line for (line,) in db.execute("PRAGMA integrity_check").fetchall() if line != "ok"]
        for table in ("jobs", "ready", "claims"):
            left = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            found += [f"{left} rows left in {table}"] if left else []
    return found
