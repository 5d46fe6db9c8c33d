"""Plain functions, each in a thread of its own choosing: one thread for each slot, fed from one queue."""

import ctypes
import threading
from collections.abc import Sequence

from penstock.context import Guard, guard_this_thread
from penstock.model.job import Claim, Fence
from penstock.model.outcome import Outcome
from penstock.worker.execution import Attempt, Interrupt, JobStopped, JobTimeout, explain, run
from penstock.worker.runners.contract import Surroundings
from penstock.worker.runners.waiting import Waiting


class ThreadRunner(Waiting):
    """Runs jobs in `places` threads, whose places on the board begin at `first`."""

    def __init__(self, around: Surroundings, first: int, places: int) -> None:
        super().__init__(places)
        self._slots = [Slot(self, around, first + index) for index in range(places)]

    def start(self, claims: Sequence[Claim]) -> None:
        if not self.begun:
            for slot in self._slots:
                self.begin(slot.serve, f"penstock-slot-{slot.place}")
        for claim in claims:
            self.claims.put(claim)

    def take_this_thread(self) -> "Slot":
        """Make the calling thread the only slot, to be served by it; for a child, whose jobs get the main thread."""
        self.begun = 1
        return self._slots[0]

    def cancel(self, fence: Fence) -> None:
        for slot in self._slots:
            attempt = slot.attempt
            if attempt is not None and attempt.claim.fence == fence:
                attempt.cancelled = True

    def check(self, now_ns: int) -> None:
        for slot in self._slots:
            attempt = slot.attempt
            if attempt is not None and 0 < attempt.deadline_ns <= now_ns:
                slot.interrupt(attempt, JobTimeout)

    def interrupt(self) -> None:
        for slot in self._slots:
            attempt = slot.attempt
            if attempt is not None:
                slot.interrupt(attempt, JobStopped)


class Slot:
    """One thread's place: runs one job at a time and can be interrupted from outside."""

    def __init__(self, runner: ThreadRunner, around: Surroundings, place: int) -> None:
        self.place = place
        self.attempt: Attempt | None = None
        self._runner, self._around, self._board = runner, around, around.board
        self._guard = Guard()
        self._thread = 0

    def serve(self) -> None:
        """Run claims until None comes."""
        self._thread = threading.get_ident()
        self._board.set_thread(self.place, self._thread)
        guard_this_thread(self._guard)
        take, deliver = self._runner.claims.get, self._around.deliver
        while (claim := take()) is not None:
            deliver(self._runner, claim, self._run(claim))

    def interrupt(self, attempt: Attempt, why: type[Interrupt]) -> None:
        """Raise `why` in the attempt if it still runs here and was not interrupted before.

        A store call of the job comes to its end first.
        """
        with self._guard.lock:
            if self.attempt is attempt and attempt.interrupt is None:
                attempt.interrupt = why
                if self._guard.admit(why):
                    _raise_in(self._thread, why)

    def _run(self, claim: Claim) -> Outcome:
        """Run one claim. An interrupt may land between any two steps here, once, until `_leave` has cleared it."""
        outcome: Outcome | None = None
        attempt = Attempt(claim, self._around.notes, self._around.failures)
        try:
            self._board.occupy(self.place, claim.fence.token, claim.id, attempt.deadline_ns, attempt.began_ns)
            self.attempt = attempt
            outcome = run(attempt, self._around.tasks[claim.task], self._around.home)
            self._leave(attempt)
        except BaseException as error:  # noqa: BLE001 - the last resort of the slot's thread
            self._leave(attempt)
            if outcome is None:
                outcome = explain(attempt, error)
        return outcome

    def _leave(self, attempt: Attempt) -> None:
        with self._guard.lock:
            if attempt.interrupt is not None:
                _raise_in(self._thread, None)
            self._guard.reset()
            if self.attempt is None:
                return
            self.attempt = None
        self._board.vacate(self.place)


def _raise_in(thread: int, why: type[Interrupt] | None) -> None:
    """Raise an exception in another thread at its next bytecode; None takes back one that has not been raised yet.

    Source: Python/C API, PyThreadState_SetAsyncExc.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(why) if why else None)
