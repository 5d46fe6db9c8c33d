"""Coroutines, each in an asyncio Task of its own, on one event loop in one thread."""

import asyncio
import logging
import queue
import threading
from collections.abc import Sequence

from penstock.context import enter, leave
from penstock.model.errors import Cancel
from penstock.model.job import Claim, Fence
from penstock.model.outcome import Outcome
from penstock.worker.execution import (
    Attempt,
    Interrupt,
    JobStopped,
    JobTimeout,
    Runnable,
    explain,
    name_of,
    prepare,
    succeed,
)
from penstock.worker.runners.contract import Surroundings
from penstock.worker.runners.vigil import Vigil
from penstock.worker.runners.waiting import Waiting

log = logging.getLogger("penstock.worker")


class LoopRunner(Waiting):
    """Runs up to `places` coroutines at once; their places on the board begin at `first`."""

    def __init__(self, around: Surroundings, first: int, places: int) -> None:
        super().__init__(places)
        self._around, self._first = around, first
        self._free = list(range(places - 1, -1, -1))
        self._attempts: list[Attempt | None] = [None] * places
        self._tasks: list[asyncio.Task[None] | None] = [None] * places
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._thread = 0
        ignored_ns = round(around.hard_limit_s * 5e8)
        self._vigil = Vigil(around.board, first, self._attempts, self._tasks, ignored_ns)

    def start(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self.claims.put(claim)
        self._call(self._fill)

    def cancel(self, fence: Fence) -> None:
        for place, attempt in enumerate(self._attempts):
            if attempt is not None and attempt.claim.fence == fence and not attempt.cancelled:
                attempt.cancelled = True
                self._call(self._cancel, place, attempt)

    def check(self, now_ns: int) -> None:
        for place, attempt in enumerate(self._attempts):
            if attempt is not None and 0 < attempt.deadline_ns <= now_ns and attempt.interrupt is None:
                self._call(self._interrupt, place, attempt, JobTimeout)
        if self._loop is not None and self._thread:
            self._vigil.look(self._loop, self._thread, now_ns)

    def interrupt(self) -> None:
        for place, attempt in enumerate(self._attempts):
            if attempt is not None:
                self._call(self._interrupt, place, attempt, JobStopped)

    def close(self) -> None:
        self._closed = True
        if self._loop is not None:
            self._call(self._loop.stop)

    def _call(self, function: object, *args: object) -> None:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._serve, args=(self._loop,), name="penstock-loop", daemon=True).start()
        self._loop.call_soon_threadsafe(function, *args)  # type: ignore[arg-type]  # any of the methods below

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        self._thread = threading.get_ident()
        for place in range(self.places):
            self._around.board.set_thread(self._first + place, self._thread)
        self._run_on(loop)
        while not self._closed:
            log.warning("a task has stopped the event loop that all coroutines of its process share; it runs on")
            self._run_on(loop)
        loop.close()

    def _run_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the loop; a SystemExit in a Task that a job has made comes out here, as asyncio lets it through."""
        try:
            loop.run_forever()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the other coroutines go on
            log.warning("%s left a task of a job and has stopped the event loop", name_of(type(error)))

    # -- in the loop's thread ----------------------------------------------------------------------------------------

    def _fill(self) -> None:
        assert self._loop is not None
        claims, free = self.claims, self._free
        while free and not claims.empty():
            try:
                claim = claims.get_nowait()
            except queue.Empty:  # withdrawn meanwhile
                return
            if claim is not None:
                place = free.pop()
                self._tasks[place] = self._loop.create_task(self._run(place, claim))

    async def _run(self, place: int, claim: Claim) -> None:
        """Run one claim. It is listed as running only once it is, because a Task cancelled earlier never begins."""
        around = self._around
        attempt = Attempt(claim, around.notes, around.failures)
        around.board.occupy(self._first + place, claim.fence.token, claim.id, attempt.deadline_ns, attempt.began_ns)
        self._attempts[place] = attempt
        try:
            outcome = await _attempt(attempt, around.tasks[claim.task], around.home)
        except BaseException as error:  # noqa: BLE001 - the last resort: a place that is not given back is lost
            outcome = explain(attempt, error)
        self._attempts[place] = self._tasks[place] = None
        around.board.vacate(self._first + place)
        self._free.append(place)
        around.deliver(self, claim, outcome)
        if not self.claims.empty():
            self._fill()

    def _interrupt(self, place: int, attempt: Attempt, why: type[Interrupt]) -> None:
        if attempt.interrupt is None:
            attempt.interrupt = why
            self._cancel(place, attempt)

    def _cancel(self, place: int, attempt: Attempt) -> None:
        task = self._tasks[place]
        if self._attempts[place] is attempt and task is not None:
            task.cancel()


async def _attempt(attempt: Attempt, task: Runnable, home: object) -> Outcome:
    prepared = prepare(attempt, task, home)
    if isinstance(prepared, Outcome):
        return prepared
    context, args, kwargs = prepared
    try:
        before = enter(context)
        try:
            value = await task.function(*args, **kwargs)
        finally:
            leave(before)
        return succeed(attempt, task, value)
    except asyncio.CancelledError as error:
        return explain(attempt, _why_cancelled(attempt, error))
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like end the job, not the loop
        return explain(attempt, error)


def _why_cancelled(attempt: Attempt, error: asyncio.CancelledError) -> BaseException:
    """Tell a cancellation from outside from one that the task brought about itself."""
    if attempt.interrupt is not None:
        return attempt.interrupt().with_traceback(error.__traceback__)
    if attempt.cancelled:
        return Cancel("cancelled while it ran")
    return error
