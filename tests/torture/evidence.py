"""What is left when all is over: the file as SQL shows it, beside what jobs and producers wrote down."""

import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec import Struct

from penstock.engines.sqlite.step import COUNTED
from penstock.model.codec import decode_envelope
from tests.torture.records import ACCEPTED, ATTEMPTED, EFFECTS, Trail


class Ended(Struct, frozen=True):
    """One ended job: the claim that ended it, and the claim that its result names."""

    id: str
    state: str
    claim_number: int
    result: str


class Evidence:
    """Read once, when no process is left that could change anything.

    Attributes:
        ended: ended jobs by the name that their producer gave them.
        names: how many jobs were stored under each name.
        ran: claims under which the code of each job came to its end, as its result spells them.
    """

    def __init__(self, folder: Path) -> None:
        self.ended: dict[str, Ended] = {}
        self.names: Counter[str] = Counter()
        with closing(sqlite3.connect(folder / "store.db")) as db:
            self.integrity: list[tuple[str]] = db.execute("PRAGMA integrity_check").fetchall()
            self.left = {
                table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("jobs", "ready", "claims", "processes", "workers")
            }
            self._read_ended(db)
            self.counted, self.recounted = _counted(db), _recounted(db)
        self._read_trails(folder)

    def _read_ended(self, db: sqlite3.Connection) -> None:
        for id, state, claims, result, envelope, crc in db.execute(
            "SELECT id, state, claims, result, envelope, crc FROM ended"
        ):
            name = msgspec.json.decode(decode_envelope(envelope, crc).args)[0]
            self.names[name] += 1
            self.ended[name] = Ended(id, state, claims, msgspec.json.decode(result) if result else "")

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


def _counted(db: sqlite3.Connection) -> dict[tuple[int, str], int]:
    """Give the counters that say something, by lane and state; lane 0 has the end numbers drawn."""
    rows = db.execute("SELECT lane, what, count FROM counters WHERE count != 0").fetchall()
    finished = len(COUNTED)
    counts = {
        (lane, "finished" if what == finished else COUNTED[what].value): count for lane, what, count in rows if lane
    }
    return counts | {(0, "ended"): next(count for lane, what, count in rows if (lane, what) == (0, 1))}


def _recounted(db: sqlite3.Connection) -> dict[tuple[int, str], int]:
    """Count the same from the rows of the jobs."""
    counts: Counter[tuple[int, str]] = Counter()
    for state, query in _STATES.items():
        for lane, count in db.execute(f"SELECT lane, count(*) FROM {query} GROUP BY lane"):
            counts[lane, state] += count
    for lane, state, count in db.execute("SELECT lane, state, count(*) FROM ended GROUP BY lane, state"):
        counts[lane, state] += count
        counts[lane, "finished"] += count
    counts[0, "ended"] = db.execute("SELECT max(ended) FROM ended").fetchone()[0]
    return dict(counts)


_STATES = {"ready": "ready", "running": "claims", "scheduled": "jobs WHERE due_ms IS NOT NULL"}
