"""One process of a worker as its supervisor sees it: started, watched, stopped, and what it leaves behind."""

import logging
import os
import signal
import subprocess
import sys
import time

from penstock.engine import Death
from penstock.model.job import JobId, ProcessId
from penstock.model.outcome import Ending
from penstock.worker.board import Board
from penstock.worker.channel import Channel, FromSupervisor, Go, Plan, Release, Stop
from penstock.worker.forensics import Remains, is_stopped, reap, resident_bytes, spell_bytes
from penstock.worker.runners.contract import HARD_LIMIT_AFTER_S
from penstock.worker.tender import new_process_id
from penstock.worker.verdict import STOPPED, Verdict

log = logging.getLogger("penstock.worker")

#: How long after its release a process may take to give its jobs back.
GRACE_S = 5.0
#: How much longer than its own process the supervisor waits for a child or command that is over its limit.
ISOLATED_EXTRA_S = 5.0
#: How long a process whose job ignores its limit may be silent before it counts as blocked by that job.
SILENCE_NS = 3_000_000_000
KILL_ABOVE = 1.5


class Member:
    """One process; used by the supervisor's main thread alone.

    Attributes:
        id: its identity in the store.
        began_at: when it was told to go; None before.
        verdict: why the supervisor killed it, None if it did not.
    """

    def __init__(self, plan: Plan) -> None:
        self.id: ProcessId = new_process_id()
        self.plan = plan
        self.board = Board.create(sum(plan.places.values()))
        self.channel, other = Channel.pair()
        with other:
            descriptors = (other.fileno(), self.board.descriptor)
            words = [str(number) for number in (*descriptors, os.getpid())]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penstock.worker.process", *words],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        self.pid = self._process.pid
        self.handle = os.pidfd_open(self.pid)
        self.channel.send(plan)
        self.greeted = False
        self.began_at: float | None = None
        self.stopping = False
        self.verdict: Verdict | None = None
        self._release_at: float | None = None
        self._kill_at: float | None = None
        self._frozen_since: float | None = None
        self._overdue: frozenset[JobId] = frozenset()

    # -- orders ------------------------------------------------------------------------------------------------------

    def send(self, message: FromSupervisor) -> None:
        self.channel.send(message)

    def go(self, worker: str) -> None:
        self.began_at = time.monotonic()
        self.send(Go(self.id, worker))

    def stop(self, timeout_s: float | None) -> None:
        """Let it finish what runs; what still runs after `timeout_s` is given back."""
        if not self.stopping:
            self.stopping = True
            self.send(Stop())
        if timeout_s is not None:
            self._release_at = min(self._release_at or float("inf"), time.monotonic() + timeout_s)

    def release(self, grace_s: float) -> None:
        """Let it give back what runs, and kill it when that takes longer than `grace_s`."""
        self.stopping = True
        self._release_at = float("inf")
        self._kill_at = min(self._kill_at or float("inf"), time.monotonic() + grace_s)
        self.send(Release())

    def kill(self, verdict: Verdict) -> None:
        if self.verdict is None:
            self.verdict = verdict
            os.kill(self.pid, signal.SIGKILL)

    def show_stacks(self) -> None:
        """Let it write the stacks of its threads; before its greeting the signal would stop it."""
        if self.greeted:
            os.kill(self.pid, signal.SIGTTIN)

    # -- watching ----------------------------------------------------------------------------------------------------

    def is_frozen(self, now: float) -> bool:
        """Say whether it has been stopped for a third of its lease."""
        if not is_stopped(self.pid):
            self._frozen_since = None
            return False
        if self._frozen_since is None:
            self._frozen_since = now
        return now - self._frozen_since >= self.plan.lease_ms / 3000

    def keep_time(self, now: float) -> None:
        """Enforce the times that it was given for stopping."""
        if self._kill_at is not None and now >= self._kill_at:
            self.kill(Verdict(STOPPED.ending, STOPPED.message, self._overdue))
        elif self._release_at is not None and now >= self._release_at:
            self.release(GRACE_S)

    def check_jobs(self) -> None:
        """Enforce what a process cannot enforce on itself: jobs that ignore their limit, and a pump that is dead."""
        now_ns = time.monotonic_ns()
        running = self.board.running()
        limits = [shown.deadline_ns for shown in running]
        self._overdue = frozenset(
            JobId(shown.id) for shown in running if self._is_overdue(shown.place, shown.deadline_ns, now_ns)
        )
        silent_ns = now_ns - self.board.last_beat_ns
        if self._overdue:
            self._end_overdue(silent_ns)
        elif None not in limits and self.board.last_beat_ns:
            last_ns = max([self.board.last_beat_ns + self.plan.lease_ms * 1_000_000, *(limit or 0 for limit in limits)])
            if now_ns > last_ns + HARD_LIMIT_AFTER_S * 1e9:
                log.error("process %d has been silent for %.0f s and is killed", self.pid, silent_ns / 1e9)
                self.kill(Verdict(Ending.CRASHED, f"its process was dead inside for {silent_ns / 1e9:.0f} s"))

    def _is_overdue(self, place: int, deadline_ns: int | None, now_ns: int) -> bool:
        if deadline_ns is None:
            return False
        isolated = place >= self.plan.places["thread"] + self.plan.places["loop"]
        limit_s = HARD_LIMIT_AFTER_S + (ISOLATED_EXTRA_S if isolated else 0)
        return now_ns > deadline_ns + limit_s * 1e9

    def _end_overdue(self, silent_ns: int) -> None:
        """Stop a process with jobs that ignore their limit, and kill it once they are all that is left."""
        if not self.stopping:
            log.error(
                "jobs ignore their time limit: %s; process %d is ended", ", ".join(sorted(self._overdue)), self.pid
            )
            self.stop(self.plan.shutdown_ms / 1000)
        if silent_ns > SILENCE_NS or self.board.held <= len(self._overdue):
            self.kill(Verdict(Ending.RELEASED, STOPPED.message, self._overdue))

    def has_no_room(self) -> str | None:
        """Say why no job could run here, when the application alone needs more memory than allowed."""
        limit, size = self.plan.max_memory, resident_bytes(self.pid)
        if limit is None or size <= limit:
            return None
        return (
            f"max_memory is {spell_bytes(limit)}, but a process with the application imported already uses "
            f"{spell_bytes(size)}; give at least {spell_bytes(2 * size)}."
        )

    def check_memory(self) -> None:
        """Replace a process that has grown over its limit; kill it at half as much again."""
        limit = self.plan.max_memory
        if limit is None:
            return
        size = resident_bytes(self.pid)
        if size > limit * KILL_ABOVE:
            message = f"its process used {spell_bytes(size)} of memory, over the limit of {spell_bytes(limit)}"
            log.error("process %d is killed: it uses %s of memory", self.pid, spell_bytes(size))
            self.kill(Verdict(Ending.CRASHED, message))
        elif size > limit and not self.stopping:
            log.warning("process %d is replaced: it uses %s of memory", self.pid, spell_bytes(size))
            self.stop(self.plan.shutdown_ms / 1000)

    # -- the end -----------------------------------------------------------------------------------------------------

    def bury(self) -> "tuple[Remains, Death]":
        """Collect an ended process and what it started, then tell what it left.

        Whatever still runs in its name is killed first: nothing may be handed on while its code can run.
        """
        running = self.board.running()
        groups = [self.pid, *(shown.group for shown in running if shown.group)]
        for group in groups:
            _kill_group(group)
        remains = reap(self.pid) or Remains(0)
        self._process.returncode = remains.code
        for group in groups:
            _collect_group(group)
        return remains, Death(self.id, self.board.started())

    def close(self) -> None:
        self.channel.close()
        os.close(self.handle)
        self.board.close()


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _collect_group(group: int) -> None:
    """Collect the descendants of a dead process that were handed to this one; they have been killed."""
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        try:
            found, _ = os.waitpid(-group, os.WNOHANG)
        except ChildProcessError:
            return
        if not found:
            time.sleep(0.001)
