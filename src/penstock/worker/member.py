"""One process of a worker as its supervisor sees it: started, watched, stopped, and what it leaves behind."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time

from msgspec.structs import replace

from penstock.engine import Death
from penstock.model.durations import spell
from penstock.model.job import JobId, ProcessId
from penstock.model.outcome import Ending
from penstock.worker import stacks
from penstock.worker.board import Board, BoardState
from penstock.worker.channel import Channel, FromSupervisor, Go, Plan, Release, Stop
from penstock.worker.forensics import Gauge, Remains, is_stopped, resident_bytes, spell_bytes
from penstock.worker.runners.contract import HARD_LIMIT_AFTER_S
from penstock.worker.scene import survey
from penstock.worker.tender import new_process_id
from penstock.worker.verdict import STOPPED, Verdict

log = logging.getLogger("penstock.worker")

#: How long a process may take to interrupt its jobs and give them back, before it is killed.
GIVE_BACK_S = 1.0
#: After how long a start is remarkable.
SLOW_START_S = 5.0
#: How long a process that is killed for its start gets to write where it stands.
SHOWING_S = 0.5
#: How much longer than its own process the supervisor waits for a child or command that is over its limit.
ISOLATED_EXTRA_S = 5.0
#: How long a process whose job ignores its limit may be silent before it counts as blocked by that job.
SILENCE_NS = 3_000_000_000
KILL_ABOVE = 1.5
#: How many jobs one log line names.
MOST_NAMED = 10


class Member:
    """One process; used by the supervisor's main thread alone.

    Attributes:
        id: its identity in the store.
        began_at: when it was told to go; None before.
        is_stuck: whether it took too long to import the application.
        is_void: whether it told that it had lost its lease.
        verdict: why the supervisor killed it, None if it did not.

    Raises:
        OSError: no process can be started now; nothing of it is left.
    """

    def __init__(self, plan: Plan) -> None:
        self.id: ProcessId = new_process_id()
        self.plan = plan
        with contextlib.ExitStack() as undo:
            self.board = Board.create(sum(plan.places.values()))
            undo.callback(self.board.close)
            self.channel, other = Channel.pair()
            undo.callback(self.channel.close)
            with other:
                self._process = self._spawn(other.fileno(), self.board.descriptor)
            undo.callback(self._process.wait)
            undo.callback(self._process.kill)
            self.handle = os.pidfd_open(self._process.pid)
            undo.pop_all()
        self.pid = self._process.pid
        self.gauge = Gauge(self.pid)
        self.channel.send(plan)
        self.started_at = time.monotonic()
        self.greeted = self.is_stuck = self.is_void = False
        self.began_at: float | None = None
        self.stopping = False
        self.verdict: Verdict | None = None
        self._told_slow = self._was_locked = False
        self._release_at: float | None = None
        self._kill_at: float | None = None
        self._frozen_since: float | None = None
        self._overdue: frozenset[JobId] = frozenset()

    def _spawn(self, *descriptors: int) -> "subprocess.Popen[bytes]":
        words = [str(number) for number in (*descriptors, os.getpid())]
        return subprocess.Popen(
            [sys.executable, "-m", "penstock.worker.process", *words],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            process_group=0,
        )

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

    def release(self, grace_s: float = GIVE_BACK_S) -> None:
        """Let it give back what runs, and kill it when that takes longer than `grace_s`."""
        self.stopping = True
        self._release_at = float("inf")
        self._kill_at = min(self._kill_at or float("inf"), time.monotonic() + grace_s)
        self.send(Release())

    def kill(self, verdict: Verdict) -> None:
        if self.verdict is None:
            self.verdict = verdict
            os.kill(self.pid, signal.SIGKILL)

    def kill_hung(self, verdict: Verdict) -> None:
        """Kill it once it has written where its threads stand."""
        if self.verdict is None:
            silent_ns = time.monotonic_ns() - self.board.last_beat_ns
            self._was_locked = silent_ns > SILENCE_NS and not is_stopped(self.pid)
            stacks.ask(self.pid, self.board)
            self.kill(verdict)

    def show_stacks(self) -> None:
        """Let it write the stacks of its threads; before it is ready for the signal, that would stop it."""
        if self.board.state is not BoardState.STARTING:
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
            self._end_unyielding()
        elif self._release_at is not None and now >= self._release_at:
            self.release()

    def keep_starting(self, now: float, timeout_s: float) -> None:
        """Say when an import takes long; after `timeout_s` show where it stands and kill the process."""
        took_s = now - self.started_at
        if self.is_stuck:
            if took_s > timeout_s + SHOWING_S:
                self.kill(STOPPED)
        elif took_s > timeout_s:
            self.is_stuck = True
            log.error(
                "process %d has not imported %s within %s and is killed; its stacks follow",
                self.pid,
                self.plan.app,
                spell(timeout_s),
            )
            self.show_stacks()
        elif took_s > SLOW_START_S and not self._told_slow:
            self._told_slow = True
            log.warning(
                "process %d is still importing %s after %s; `kill -TTIN %d` shows where, and after %s it is killed "
                "(--start-timeout)",
                self.pid,
                self.plan.app,
                spell(round(took_s)),
                os.getpid(),
                spell(timeout_s),
            )

    def _end_unyielding(self) -> None:
        """Kill it; what it still runs goes back."""
        if self.verdict is None and (running := self.jobs()):
            log.warning(
                "process %d is killed, because these jobs do not stop: %s; they are given back free of charge",
                self.pid,
                running,
            )
        elif self.verdict is None and (held := self.board.held):
            log.warning(
                "process %d is killed, because the store does not take the outcomes of %d jobs; they run again",
                self.pid,
                held,
            )
        end = self.kill_hung if self._overdue else self.kill
        end(Verdict(STOPPED.ending, STOPPED.message, self._overdue))

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
                log.error(
                    "process %d has been dead inside for %.0f s and is killed and replaced; the jobs it ran are "
                    "charged a crash: %s",
                    self.pid,
                    silent_ns / 1e9,
                    self.jobs() or "none",
                )
                self.kill_hung(Verdict(Ending.CRASHED, f"its process was dead inside for {silent_ns / 1e9:.0f} s"))

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
                "jobs ignore their time limit: %s; process %d claims no more and is killed once its other jobs have "
                "ended, or in %s",
                ", ".join(sorted(self._overdue)),
                self.pid,
                spell(self.plan.shutdown_ms / 1000),
            )
            self.stop(self.plan.shutdown_ms / 1000)
        if silent_ns > SILENCE_NS or self.board.held <= len(self._overdue):
            self.kill_hung(Verdict(Ending.RELEASED, STOPPED.message, self._overdue))

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
        self.gauge.look()
        limit = self.plan.max_memory
        if limit is None:
            return
        size = resident_bytes(self.pid)
        if size > limit * KILL_ABOVE:
            message = f"its process used {spell_bytes(size)} of memory, over the limit of {spell_bytes(limit)}"
            log.error(
                "process %d is killed: it uses %s of memory, more than half above max_memory (%s); the jobs it ran are "
                "charged a crash: %s",
                self.pid,
                spell_bytes(size),
                spell_bytes(limit),
                self.jobs() or "none",
            )
            self.kill(Verdict(Ending.CRASHED, message))
        elif size > limit and not self.stopping:
            log.warning(
                "process %d is replaced: it uses %s of memory, over max_memory (%s); its jobs may finish first",
                self.pid,
                spell_bytes(size),
                spell_bytes(limit),
            )
            self.stop(self.plan.shutdown_ms / 1000)

    def jobs(self) -> str:
        """Name the jobs whose code may be running, some of many."""
        ids = [shown.id for shown in self.board.running()]
        more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
        return ", ".join(ids[:MOST_NAMED]) + more

    # -- the end -----------------------------------------------------------------------------------------------------

    def bury(self) -> "tuple[Remains, Death]":
        """Collect an ended process and what it started, then tell what it left.

        Whatever still runs in its name is killed first: nothing may be handed on while its code can run.
        """
        groups = [self.pid, *self.board.groups()]
        for group in groups:
            _kill_group(group)
        remains = self.gauge.reap() or Remains(0)
        self._process.returncode = remains.code
        for group in groups:
            _collect_group(group)
        return remains, Death(self.id, self.board.started())

    def judge(self, remains: Remains) -> Verdict:
        """Say what its end means for its jobs."""
        if self.verdict is None and remains.code >= 0 and self.stopping:
            return STOPPED
        verdict = self.verdict or Verdict(Ending.CRASHED, f"its process {self.story(remains)}")
        complaint = "" if self.verdict is None else verdict.message
        scene = survey(self.board, remains, complaint=complaint, is_locked=self._was_locked)
        if scene.stacks:
            log.error("the threads of process %d stood here when it ended:\n%s", self.pid, stacks.arrange(scene.stacks))
        return replace(verdict, scene=scene)

    def story(self, remains: Remains) -> str:
        """Say how it ended, as the rest of a sentence about it."""
        if self.verdict is not None:
            return f"was killed by its supervisor: {self.verdict.message}"
        return remains.story()

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
