"""The process lane: a warm pool of children, one job each at a time, so that a job can take down nothing but itself."""

import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from penstock.model.job import Claim, ErrorInfo, Fence
from penstock.model.outcome import Ending, Outcome
from penstock.worker.channel import AskToStop, Channel, Ended, Fault, Interrupted, Noted, Plan, Run
from penstock.worker.execution import Attempt, JobTimeout, explain
from penstock.worker.forensics import Remains, resident_bytes, spell_bytes, wait_for
from penstock.worker.runners.contract import HARD_LIMIT_AFTER_S, Surroundings

log = logging.getLogger("penstock.worker")

#: Starts a program from the thread that lives as long as the process; takes what `subprocess.Popen` takes.
Spawn = Callable[..., "subprocess.Popen[bytes]"]

#: How often a busy child is measured against its limits.
CHECK_EVERY_S = 0.5

#: How long a job is put off when no child could be started for it.
UNABLE_SNOOZE_MS = 10_000


class ChildRunner:
    """Runs each job in a child process; children are started when first needed and kept warm."""

    def __init__(self, around: Surroundings, first: int, places: int, *, plan: Plan, spawn: Spawn) -> None:
        self.places = places
        self.plan, self.spawn = plan, spawn
        self._claims: queue.SimpleQueue[Claim | None] = queue.SimpleQueue()
        self._seats = [Seat(self, around, first + index) for index in range(places)]
        self._seated = 0
        self._idle = threading.Semaphore(0)

    @property
    def claims(self) -> "queue.SimpleQueue[Claim | None]":
        return self._claims

    def start(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self._claims.put(claim)
            if not self._idle.acquire(blocking=False) and self._seated < self.places:
                self._seats[self._seated].begin()
                self._seated += 1

    def rest(self) -> None:
        """Called by a seat before it takes its next claim."""
        self._idle.release()

    def waits(self) -> bool:
        return not self._claims.empty()

    def withdraw(self) -> list[Claim]:
        taken: list[Claim] = []
        while True:
            try:
                claim = self._claims.get_nowait()
            except queue.Empty:
                return taken
            if claim is not None:
                taken.append(claim)

    def cancel(self, fence: Fence) -> None:
        for seat in self._seats:
            seat.cancel(fence)

    def check(self, now_ns: int) -> None:
        """Nothing to do: a child interrupts its own job, and its seat keeps the hard limit."""

    def interrupt(self) -> None:
        for seat in self._seats:
            seat.interrupt()

    def close(self) -> None:
        for _ in range(self._seated):
            self._claims.put(None)


class Seat:
    """One child after another, and the thread that talks with it."""

    def __init__(self, runner: ChildRunner, around: Surroundings, place: int) -> None:
        self._runner, self._around, self._place = runner, around, place
        self._attempt: Attempt | None = None
        self._child: Child | None = None

    def begin(self) -> None:
        threading.Thread(target=self._serve, name=f"penstock-child-{self._place}", daemon=True).start()

    def cancel(self, fence: Fence) -> None:
        attempt, child = self._attempt, self._child
        if attempt is not None and attempt.claim.fence == fence and not attempt.cancelled:
            attempt.cancelled = True
            if child is not None:
                child.channel.send(AskToStop(fence))

    def interrupt(self) -> None:
        attempt, child = self._attempt, self._child
        if attempt is not None and child is not None:
            child.channel.send(Interrupted(attempt.claim.fence))

    def _serve(self) -> None:
        while (claim := self._runner.claims.get()) is not None:
            self._around.deliver(self._runner, claim, self._run(claim))
            self._runner.rest()
        if self._child is not None:
            self._child.end()

    def _run(self, claim: Claim) -> Outcome:
        child = self._child if self._child is not None and self._child.is_alive() else self._hire()
        if isinstance(child, Outcome):
            return child
        attempt = self._attempt = Attempt(claim, self._around.notes)
        self._around.board.occupy(self._place, claim.fence.token, claim.id, attempt.deadline_ns)
        try:
            outcome = child.run(attempt, self._limit(claim))
        finally:
            self._attempt = None
            self._around.board.vacate(self._place)
        if child.is_used_up(self._runner.plan):
            child.end()
            self._child = None
        return outcome

    def _limit(self, claim: Claim) -> int | None:
        own = self._around.tasks[claim.task].max_memory
        return own if own is not None else self._runner.plan.max_memory

    def _hire(self) -> "Child | Outcome":
        """Start a child and wait until it has imported the application."""
        try:
            child = Child.start(self._runner.plan, self._runner.spawn)
        except OSError as error:
            return _unable(f"no child process can be started: {error}")
        fault = child.greet()
        if fault is not None:
            child.end()
            return _unable(f"a child process cannot load the application: {fault}")
        self._child = child
        return child


class Child:
    """One child process at the other end of a channel."""

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid, self.channel = pid, channel
        self.remains: Remains | None = None
        self._ran = 0

    @classmethod
    def start(cls, plan: Plan, spawn: Spawn) -> "Child":
        channel, other = Channel.pair()
        with other:
            argv = [sys.executable, "-m", "penstock.worker.child", str(other.fileno()), str(os.getpid())]
            process = spawn(argv, pass_fds=(other.fileno(),), stdin=subprocess.DEVNULL)
        process.returncode = 0  # it is collected here with wait4, never by Popen
        channel.send(plan)
        return cls(process.pid, channel)

    def greet(self) -> str | None:
        """Wait for its first message; give what it says is wrong, None if it is ready."""
        messages = self.channel.receive()
        if messages is None:
            return str(self._bury())
        first = messages[0]
        return first.message if isinstance(first, Fault) else None

    def run(self, attempt: Attempt, max_memory: int | None = None) -> Outcome:
        """Run one claim, within its hard limit of time and `max_memory` bytes."""
        self._ran += 1
        self.channel.send(Run(attempt.claim))
        while True:
            if not _poll(self.channel, CHECK_EVERY_S):
                if attempt.deadline_ns and time.monotonic_ns() > attempt.deadline_ns + HARD_LIMIT_AFTER_S * 1e9:
                    return self._overdue(attempt)
                if max_memory is not None and resident_bytes(self.pid) > max_memory:
                    return self._too_large(attempt, max_memory)
                continue
            messages = self.channel.receive()
            if messages is None:
                return self._crashed(attempt)
            for message in messages:
                if isinstance(message, Noted):
                    attempt.note(message.progress, message.log)
                elif isinstance(message, Ended):
                    return message.outcome

    def is_alive(self) -> bool:
        """Say whether it is still there; an idle child says nothing, so anything to read is the end."""
        if self.remains is None and _poll(self.channel, 0):
            log.warning("an idle child process %s", self._bury().story())
        return self.remains is None

    def is_used_up(self, plan: Plan) -> bool:
        if self.remains is not None or (plan.max_jobs is not None and self._ran >= plan.max_jobs):
            return True
        return plan.max_memory is not None and resident_bytes(self.pid) > plan.max_memory

    def end(self) -> None:
        """End it now; it runs nothing."""
        if self.remains is None:
            os.kill(self.pid, signal.SIGKILL)
            self._bury()

    def _bury(self) -> Remains:
        self.channel.close()
        self.remains = wait_for(self.pid)
        return self.remains

    def _overdue(self, attempt: Attempt) -> Outcome:
        os.kill(self.pid, signal.SIGKILL)
        self._bury()
        return explain(attempt, JobTimeout())

    def _too_large(self, attempt: Attempt, max_memory: int) -> Outcome:
        os.kill(self.pid, signal.SIGKILL)
        peak = spell_bytes(self._bury().peak_bytes)
        log.error("a child process was killed: job %s took it to %s", attempt.claim.id, peak)
        return crashed(attempt, f"its process used {peak}, over the limit of {spell_bytes(max_memory)}")

    def _crashed(self, attempt: Attempt) -> Outcome:
        remains = self._bury()
        log.error("a child process %s while it ran job %s", remains.story(), attempt.claim.id)
        return crashed(attempt, f"its process {remains.story()}")


def crashed(attempt: Attempt, message: str) -> Outcome:
    return Outcome(
        ending=Ending.CRASHED,
        error=ErrorInfo(kind="crashed", message=message, attempt=attempt.claim.attempt),
        cancel_requested=attempt.cancelled,
        ran_us=attempt.ran_us,
    )


def _unable(message: str) -> Outcome:
    """Put the job off rather than give it back, or it would be claimed again at once, for ever."""
    log.error("%s; its job is put off for %d s", message, UNABLE_SNOOZE_MS // 1000)
    error = ErrorInfo(kind="released", message=message)
    return Outcome(ending=Ending.SNOOZED, after_ms=UNABLE_SNOOZE_MS, started=False, error=error)


def _poll(channel: Channel, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
