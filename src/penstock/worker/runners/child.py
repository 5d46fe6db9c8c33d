"""The process lane: a warm pool of children, one job each at a time, so that a job can take down nothing but itself."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from penstock.model.durations import spell
from penstock.model.job import Claim, ErrorInfo, Fence
from penstock.model.outcome import Ending, Outcome
from penstock.worker import stacks
from penstock.worker.board import Board
from penstock.worker.channel import AskToStop, Channel, Ended, Fault, Interrupted, Noted, Plan, Run
from penstock.worker.child import PLACES
from penstock.worker.execution import Attempt, JobStopped, JobTimeout, explain
from penstock.worker.forensics import Gauge, Remains, is_stopped, resident_bytes, spell_bytes
from penstock.worker.offspring import end_descendants
from penstock.worker.runners.contract import Surroundings
from penstock.worker.runners.waiting import Waiting
from penstock.worker.scene import Scene, survey
from penstock.worker.verdict import overran

log = logging.getLogger("penstock.worker")

#: Starts a program from the thread that lives as long as the process; takes what `subprocess.Popen` takes.
Spawn = Callable[..., "subprocess.Popen[bytes]"]

#: How often the thread of a busy child looks whether its job is to stop.
TICK_S = 0.1
#: How often a busy child is measured against its limit of memory.
CHECK_EVERY_S = 0.5

#: How long a process that ends may take from closing its files to its end.
ENDING_S = 0.25
CLOSED_STORY = (
    "closed its line to the worker, as a job does that closes descriptors which are not its own, and was killed"
)

#: How long a job is put off when no child could be started for it.
UNABLE_SNOOZE_MS = 10_000


class ChildRunner(Waiting):
    """Runs each job in a child process; children are started when first needed and kept warm."""

    def __init__(self, around: Surroundings, first: int, places: int, *, plan: Plan, spawn: Spawn) -> None:
        super().__init__(places)
        self.plan, self.spawn = plan, spawn
        self._seats = [Seat(self, around, first + index) for index in range(places)]
        self._idle = threading.Semaphore(0)

    def start(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self.claims.put(claim)
            if not self._idle.acquire(blocking=False) and self.begun < self.places:
                seat = self._seats[self.begun]
                self.begin(seat.serve, f"penstock-child-{seat.place}")

    def rest(self) -> None:
        """Called by a seat before it takes its next claim."""
        self._idle.release()

    def cancel(self, fence: Fence) -> None:
        for seat in self._seats:
            seat.cancel(fence)

    def check(self, now_ns: int) -> None:
        """Nothing to do: a child interrupts its own job, and its seat keeps the hard limit."""

    def interrupt(self) -> None:
        for seat in self._seats:
            seat.interrupt()


class Seat:
    """One child after another, and the thread that talks with it."""

    def __init__(self, runner: ChildRunner, around: Surroundings, place: int) -> None:
        self.place = place
        self._runner, self._around = runner, around
        self._attempt: Attempt | None = None
        self._child: Child | None = None

    def serve(self) -> None:
        """Run claims until None comes."""
        while (claim := self._runner.claims.get()) is not None:
            self._around.deliver(self._runner, claim, self._survive(claim))
            self._runner.rest()
        if self._child is not None:
            self._child.end()

    def cancel(self, fence: Fence) -> None:
        """Let the seat's own thread tell the child, which may be slow to listen."""
        attempt = self._attempt
        if attempt is not None and attempt.claim.fence == fence:
            attempt.cancelled = True

    def interrupt(self) -> None:
        attempt = self._attempt
        if attempt is not None and attempt.interrupt is None:
            attempt.interrupt = JobStopped

    def _survive(self, claim: Claim) -> Outcome:
        """Run a claim; a thread that ended here would take its place and its claim with it."""
        try:
            return self._run(claim)
        except Exception as error:  # the last resort of the seat's thread
            log.exception("the child process of job %s was given up", claim.id)
            self._forsake()
            return explain(Attempt(claim, self._around.notes), error)

    def _run(self, claim: Claim) -> Outcome:
        """Run a claim, in a second child if the first ended before it had begun: that is no fault of the job."""
        for _ in range(2):
            child = self._ready_child(self._limit(claim))
            if isinstance(child, Outcome):
                return child
            outcome = self._attempted(child, claim)
            if outcome is not None:
                return outcome
        return _unable("two child processes ended before they had begun a job")

    def _attempted(self, child: "Child", claim: Claim) -> Outcome | None:
        attempt = self._attempt = Attempt(claim, self._around.notes)
        self._around.board.occupy(self.place, claim.fence.token, claim.id, attempt.deadline_ns, attempt.began_ns)
        try:
            outcome = child.run(attempt, self._limit(claim), self._around.hard_limit_s)
        finally:
            self._attempt = None
            self._around.board.vacate(self.place)
        if child.is_used_up(self._runner.plan):
            self._dismiss(child)
        return outcome

    def _limit(self, claim: Claim) -> int | None:
        own = self._around.tasks[claim.task].max_memory
        return own if own is not None else self._runner.plan.max_memory

    def _ready_child(self, max_memory: int | None) -> "Child | Outcome":
        """Give a child with room for a job of this limit; what other jobs have filled must not cost it a crash."""
        child = self._child
        if child is not None and (not child.is_alive() or child.is_larger_than(max_memory)):
            self._dismiss(child)
        return self._child or self._hire()

    def _hire(self) -> "Child | Outcome":
        """Start a child and wait until it has imported the application."""
        try:
            child = self._child = Child.start(self._runner.plan, self._runner.spawn)
        except OSError as error:
            return _unable(f"no child process can be started: {error}")
        self._around.board.set_group(self.place, child.pid)
        fault = child.greet(self._runner.plan)
        if fault is not None:
            self._dismiss(child)
            return _unable(f"a child process cannot load the application: {fault}")
        return child

    def _forsake(self) -> None:
        """End a child after a fault of this program, of which nothing is known; it may have been collected."""
        try:
            if self._child is not None:
                self._dismiss(self._child)
        except OSError as error:
            log.error("child process %s cannot be collected: %s", self._child and self._child.pid, error)
            self._child = None

    def _dismiss(self, child: "Child") -> None:
        child.end()
        self._child = None
        self._around.board.set_group(self.place, 0)


class Child:
    """One child process at the other end of a channel, with a process group of its own for whatever its jobs start."""

    def __init__(self, pid: int, channel: Channel, board: Board) -> None:
        self.pid, self.channel, self._board = pid, channel, board
        self.remains: Remains | None = None
        self._gauge = Gauge(pid)
        self._ran = 0
        self._spoilt = ""
        self._measured_ns = time.monotonic_ns()

    @classmethod
    def start(cls, plan: Plan, spawn: Spawn) -> "Child":
        with contextlib.ExitStack() as undo:
            board = Board.create(PLACES)
            undo.callback(board.close)
            channel, other = Channel.pair()
            undo.callback(channel.close)
            with other:
                descriptors = (other.fileno(), board.descriptor)
                words = [str(number) for number in (*descriptors, os.getpid())]
                argv = [sys.executable, "-m", "penstock.worker.child", *words]
                process = spawn(argv, pass_fds=descriptors, stdin=subprocess.DEVNULL, process_group=0)
            undo.pop_all()
        process.returncode = 0  # it is collected here with wait4, never by Popen
        channel.send(plan)
        return cls(process.pid, channel, board)

    def greet(self, plan: Plan) -> str | None:
        """Wait for its first message; give what it says is wrong, None if it is ready."""
        try:
            messages = self.channel.receive_first(plan.start_ms / 1000)
        except msgspec.DecodeError as error:
            self._bury()
            return f"something that it imports has written to its line to the worker, which is not its own ({error})"
        if messages is None:
            return str(self._bury())
        if not messages:
            self._bury()
            return f"it has not imported {plan.app} within {spell(plan.start_ms / 1000)} (--start-timeout)"
        first = messages[0]
        return first.message if isinstance(first, Fault) else None

    def run(self, attempt: Attempt, max_memory: int | None, hard_limit_s: float) -> Outcome | None:
        """Run one claim, within `max_memory` bytes and `hard_limit_s` after its soft limit of time.

        Nothing here waits for the child, which may have been stopped and read nothing.

        Returns:
            None if the process ended before it had begun the job.
        """
        self._ran += 1
        self.channel.post(Run(attempt.claim))
        told: set[type[AskToStop | Interrupted]] = set()
        outcome: Outcome | None = None
        while outcome is None and self.remains is None:
            self._tell(attempt, told)
            if self.channel.has_more(TICK_S):
                outcome = self._hear(attempt)
            if outcome is None and self.remains is None:
                outcome = self._check(attempt, max_memory, hard_limit_s)
        if self.remains is not None and not self._has_begun(attempt):
            log.warning("a child process ended before it had begun job %s, which goes to another", attempt.claim.id)
            return None
        return outcome

    def _tell(self, attempt: Attempt, told: set[type[AskToStop | Interrupted]]) -> None:
        """Pass on what was asked of the job since, once."""
        for asked, order in ((attempt.cancelled, AskToStop), (attempt.interrupt is not None, Interrupted)):
            if asked and order not in told:
                told.add(order)
                self.channel.post(order(attempt.claim.fence))

    def _hear(self, attempt: Attempt) -> Outcome | None:
        messages = self.channel.receive()
        if messages is None:
            return self._crashed(attempt)
        for message in messages:
            if isinstance(message, Noted):
                attempt.note(message.progress, message.log)
            elif isinstance(message, Ended):
                self._spoilt = message.spoilt
                if self._spoilt:
                    log.warning("a child process is ended after job %s: %s", attempt.claim.id, self._spoilt)
                return message.outcome
        return None

    def _has_begun(self, attempt: Attempt) -> bool:
        return attempt.claim.fence.token in self._board.started()

    def _check(self, attempt: Attempt, max_memory: int | None, hard_limit_s: float) -> Outcome | None:
        """End it if it is over a limit; measure it now and then."""
        now_ns = time.monotonic_ns()
        if attempt.deadline_ns and now_ns > attempt.deadline_ns + hard_limit_s * 1e9:
            return self._overran(attempt)
        if now_ns < self._measured_ns + CHECK_EVERY_S * 1e9:
            return None
        self._measured_ns = now_ns
        self._gauge.look()
        if max_memory is not None and (size := resident_bytes(self.pid)) > max_memory:
            return self._too_large(attempt, size, max_memory)
        return None

    def is_alive(self) -> bool:
        """Say whether it is still there; an idle child says nothing, so anything to read is the end."""
        if self.remains is None and self.channel.has_more():
            log.warning("an idle child process %s", self._bury().story())
        return self.remains is None

    def is_larger_than(self, max_memory: int | None) -> bool:
        return max_memory is not None and resident_bytes(self.pid) > max_memory

    def is_used_up(self, plan: Plan) -> bool:
        if self.remains is not None or self._spoilt or (plan.max_jobs is not None and self._ran >= plan.max_jobs):
            return True
        return self.is_larger_than(plan.max_memory)

    def end(self) -> None:
        """End it now; it runs nothing."""
        if self.remains is None:
            self._bury()
        self._board.close()

    def _bury(self) -> Remains:
        """End it and all that it started, then collect it, in this order: until then nobody else can get its number.

        The status of one that was ending already stays as it was.
        """
        end_descendants(self.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.channel.close()
        self.remains = self._gauge.wait()
        return self.remains

    def _overran(self, attempt: Attempt) -> Outcome:
        """End it with a job that did not stop when it was interrupted; one that it has not begun shall not begin."""
        is_locked = self._board.last_beat_ns < attempt.deadline_ns and not is_stopped(self.pid)
        if self._has_begun(attempt):
            stacks.ask(self.pid, self._board)
        scene = survey(self._board, self._bury(), is_locked=is_locked)
        outcome = explain(attempt, JobTimeout())
        evidence = scene.evidence(attempt.claim.id, overran(attempt.claim))
        return replace(outcome, error=replace(outcome.error, evidence=evidence)) if outcome.error else outcome

    def _too_large(self, attempt: Attempt, size: int, max_memory: int) -> Outcome:
        used, limit = spell_bytes(size), spell_bytes(max_memory)
        message = f"its process used {used}, over the limit of {limit}"
        log.error("a child process was killed: job %s took it to %s", attempt.claim.id, used)
        return crashed(attempt, message, survey(self._board, self._bury(), complaint=message))

    def _crashed(self, attempt: Attempt) -> Outcome:
        ended = self._gauge.ends_within(ENDING_S)
        remains = self._bury()
        story = remains.story() if ended else CLOSED_STORY
        if self._has_begun(attempt):
            log.error("a child process %s while it ran job %s", story, attempt.claim.id)
        complaint = "" if ended else f"it {CLOSED_STORY}"
        return crashed(attempt, f"its process {story}", survey(self._board, remains, complaint=complaint))


def crashed(attempt: Attempt, message: str, scene: Scene) -> Outcome:
    claim = attempt.claim
    evidence = scene.evidence(claim.id)
    return Outcome(
        ending=Ending.CRASHED,
        error=ErrorInfo(kind="crashed", message=message, attempt=claim.attempt, evidence=evidence),
        cancel_requested=attempt.cancelled,
        ran_us=attempt.ran_us,
    )


def _unable(message: str) -> Outcome:
    """Put the job off rather than give it back, or it would be claimed again at once, for ever."""
    log.error("%s; its job is put off for %d s", message, UNABLE_SNOOZE_MS // 1000)
    error = ErrorInfo(kind="released", message=message)
    return Outcome(ending=Ending.SNOOZED, after_ms=UNABLE_SNOOZE_MS, started=False, error=error)
