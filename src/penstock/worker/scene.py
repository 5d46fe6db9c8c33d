"""What is found where a process has ended: how it ended, where its threads stood, what each of its jobs said last."""

import time

from msgspec import Struct

from penstock.model.job import Evidence
from penstock.worker.board import Board, Shown
from penstock.worker.forensics import Remains
from penstock.worker.stacks import arrange, where
from penstock.worker.words import last_lines


class Scene(Struct, frozen=True):
    """The end of one process.

    Attributes:
        stacks: where its threads stood, if it told.
        jobs: those that ran, by their ids; who takes their claims over has other tokens for them.
        words: what each of these had said last.
        at_ns: steady time of the end.
        complaint: why it was killed by whoever started it; empty if it was not.
        is_locked: whether the interpreter lock was held for long before.
    """

    remains: Remains
    stacks: str
    jobs: dict[str, Shown]
    words: dict[str, str]
    at_ns: int
    complaint: str = ""
    is_locked: bool = False

    def evidence(self, id: str, complaint: str = "") -> Evidence:
        """Give what concerns one of its jobs.

        Args:
            complaint: what this job had done in particular for which it was killed.
        """
        job = self.jobs.get(id)
        stacks = arrange(self.stacks, thread=job.thread if job else 0, job=id)
        return Evidence(
            status=self.remains.code,
            cause=self._cause(stacks, complaint or self.complaint),
            peak_bytes=self.remains.peak_bytes,
            ran_us=(self.at_ns - job.began_ns) // 1000 if job and job.began_ns else 0,
            stacks=stacks,
            log=last_lines(self.words.get(id, "")),
        )

    def has_time_left(self, job: Shown, timeout_ms: int | None) -> bool:
        """Say whether a job had not reached its own limit when its process ended."""
        return timeout_ms is None or self.at_ns < job.began_ns + timeout_ms * 1_000_000

    def _cause(self, stacks: str, complaint: str) -> str:
        place = where(stacks)
        if not complaint:
            return ", last ".join(part for part in (self.remains.cause(), place) if part)
        lock = "held the interpreter lock" if self.is_locked else "stood"
        return f"{complaint}; it {lock} {place}" if place else complaint


def survey(board: Board, remains: Remains, *, complaint: str = "", is_locked: bool = False) -> Scene:
    """Look at what an ended process left on its board."""
    jobs = {shown.id: shown for shown in board.running()}
    words = {id: board.last_words(shown) for id, shown in jobs.items()}
    return Scene(remains, board.behind(), jobs, words, time.monotonic_ns(), complaint, is_locked)
