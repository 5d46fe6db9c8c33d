"""Group commit: many callers who enqueue at once share one write of the store."""

import copy
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from queue import SimpleQueue
from typing import TYPE_CHECKING

from penstock.context import breathe, shielded
from penstock.engine import MOST_AT_ONCE, Added, AddRequest, Engine
from penstock.model.errors import EngineBusy, EngineDown, EngineUnavailable

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["DEADLINE_S", "Intake"]

#: How long an unavailable store is asked again before the caller learns of it.
DEADLINE_S = 5.0

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.5
_LOOK_AGAIN_S = 0.05

Answer = list[Added] | Exception


class Intake:
    """Hands requests to `engine.add`, as many to a call as are waiting, at most 1,000 jobs.

    The first caller writes for all who come while it does; each caller returns only after the commit that holds its
    jobs, with its own answer or error. Thread-safe. A forked child needs an intake of its own: threads that hold the
    locks of this one do not exist there.
    """

    def __init__(self, engine: Callable[[], Engine], *, deadline_s: float = DEADLINE_S) -> None:
        self._engine = engine
        self._deadline_s = deadline_s
        self._queued: deque[_Waiter] = deque()
        self._leading = threading.Lock()
        self._starting = threading.Lock()
        self._collectors: weakref.WeakKeyDictionary[AbstractEventLoop, _Collector] = weakref.WeakKeyDictionary()
        self._latest: _Collector | None = None
        self._batches: SimpleQueue[_Batch | None] | None = None
        self._failed: tuple[float, EngineUnavailable] | None = None

    def add(self, request: AddRequest) -> list[Added]:
        """Store a request; when this returns it is as durable as the engine promises.

        `EngineBusy` and `EngineDown` are tried again with jitter until the deadline: ids are made by the client, so a
        repetition is harmless.

        Raises:
            JobRefused: this request was refused; those of others are not touched by it.
            EngineUnavailable: the store did not take it in time; whether it was stored may be unknown.
        """
        give_up = time.monotonic() + self._deadline_s
        with shielded():
            if not self._queued and not self._leading.locked():
                return self._add_alone(_Call(request, give_up))
            return self._add_with_others(_Waiter(request, give_up))

    async def aadd(self, request: AddRequest) -> list[Added]:
        """Do `add` without blocking the event loop; what its coroutines ask in one turn is written together.

        A caller that is cancelled leaves the others alone; its own jobs may be stored all the same.
        """
        loop = _get_running_loop()()
        collector = self._latest
        if collector is None or collector.loop() is not loop:
            collector = self._collector_of(loop)
        return _opened(await collector.collect(loop, request) or [])

    def close(self) -> None:
        """End the thread that writes for coroutines; a later call starts another."""
        with self._starting:
            batches, self._batches = self._batches, None
        if batches is not None:
            batches.put(None)

    # -- threads: a leader and its followers --------------------------------------------------------------------------

    def _add_alone(self, call: "_Call") -> list[Added]:
        """Write what one caller asks while nobody else does; who comes meanwhile is woken for the next write."""
        try:
            with self._leading:
                self._write([call])
        finally:
            self._wake_next()
        return _opened(call.answer or [])

    def _add_with_others(self, waiter: "_Waiter") -> list[Added]:
        try:
            self._queued.append(waiter)
            return _opened(self._answer(waiter))
        except BaseException:
            self._withdraw(waiter)
            raise

    def _answer(self, waiter: "_Waiter") -> Answer:
        """Wait to be answered, or write for all who are queued.

        A worker's interrupt comes while this waits, for its turn or between two tries, never while it writes. A wake-up
        that is lost that way is made good by looking again after 50 ms, and whoever was taken off the queue
        and forgotten leads for itself: ids are made by the client, so that what was stored is not stored again.
        """
        while waiter.answer is None:
            if self._leading.locked():
                waiter.woken.acquire(timeout=_LOOK_AGAIN_S)
                breathe()
                continue
            with self._leading:
                if waiter.answer is None:
                    self._lead(waiter)
            self._wake_next()
        return waiter.answer

    def _lead(self, leader: "_Waiter") -> None:
        self._remove(leader)
        taken = [leader]
        try:
            self._take(taken)
            self._write(taken)
        finally:
            followers = taken[1:]
            self._queued.extendleft(waiter for waiter in reversed(followers) if waiter.answer is None)
            for waiter in followers:
                waiter.wake()

    def _take(self, taken: "list[_Waiter]") -> None:
        """Add to those who are taken as many as may be written with them."""
        jobs = sum(len(waiter.request.jobs) for waiter in taken)
        while self._queued:
            try:
                waiter = self._queued.popleft()
            except IndexError:
                return  # the last one was withdrawn
            jobs += len(waiter.request.jobs)
            if jobs > MOST_AT_ONCE:
                self._queued.appendleft(waiter)
                return
            if waiter.answer is None:
                taken.append(waiter)

    def _wake_next(self) -> None:
        if self._queued:
            try:
                self._queued[0].wake()
            except IndexError:
                return  # the one who waited was withdrawn

    def _withdraw(self, waiter: "_Waiter") -> None:
        """Let nobody write or queue it again; the answer reaches no one."""
        waiter.answer = waiter.answer or []
        self._remove(waiter)

    def _remove(self, waiter: "_Waiter") -> None:
        try:
            self._queued.remove(waiter)
        except ValueError:
            return

    def _write(self, calls: "Sequence[_Call]") -> None:
        """Give each call its answer: of the store, or of its failure once the call's own time is over."""
        pause_s = _FIRST_PAUSE_S
        if self._failed is not None:
            self._refuse_late(calls, *self._failed)
        while left := [call for call in calls if call.answer is None]:
            began = time.monotonic()
            try:
                for call, answer in zip(left, self._engine().add([call.request for call in left]), strict=True):
                    call.answer = answer
                return
            except (EngineBusy, EngineDown) as error:
                now = time.monotonic()
                as_long = now - began if isinstance(error, EngineBusy) else 0.0  # as whoever holds the lock goes on to
                self._refuse_overdue(left, error, now + pause_s + as_long)
            except Exception as error:  # noqa: BLE001 (every caller raises it where it belongs)
                self._write_apart(left, error)
                return
            if any(call.answer is None for call in left):
                time.sleep(pause_s * (0.5 + random.random()))
                breathe()
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _write_apart(self, calls: "Sequence[_Call]", error: Exception) -> None:
        """Let nobody fail for what another one asked."""
        if len(calls) == 1:
            calls[0].answer = error
            return
        for call in calls:
            self._write([call])

    def _refuse_overdue(self, calls: "Sequence[_Call]", error: EngineUnavailable, next_try: float) -> None:
        for call in calls:
            if next_try >= call.give_up:
                call.answer = _copy_of(error)
                self._failed = (time.monotonic(), _copy_of(error))

    def _refuse_late(self, calls: "Sequence[_Call]", failed_at: float, error: EngineUnavailable) -> None:
        """Answer those who had waited for most of their time when the store was last found unavailable.

        One call of an engine may take all the time there is; they would wait for as long again.
        """
        for call in calls:
            if call.give_up - failed_at < self._deadline_s / 2:
                call.answer = _copy_of(error)

    # -- coroutines: a collector for each loop, one thread that writes ------------------------------------------------

    def _collector_of(self, loop: "AbstractEventLoop") -> "_Collector":
        """Find or make the collector of a loop, and remember it: as a rule there is one loop."""
        with self._starting:
            collector = self._collectors.get(loop)
            if collector is None:
                collector = self._collectors[loop] = _Collector(loop, self._submit, self._deadline_s)
        self._latest = collector
        return collector

    def _submit(self, batch: "_Batch") -> None:
        with shielded(), self._starting:
            if self._batches is None:
                batches: SimpleQueue[_Batch | None] = SimpleQueue()
                run, name = self._write_batches, "penstock-intake"
                threading.Thread(target=run, args=(batches,), name=name, daemon=True).start()
                self._batches = batches
            self._batches.put(batch)

    def _write_batches(self, batches: "SimpleQueue[_Batch | None]") -> None:
        while (batch := batches.get()) is not None:
            self._write([call for call, _ in batch.entries])
            batch.deliver()


class _Call:
    """One request, until when (in steady seconds) it may be tried, and its answer."""

    __slots__ = ("answer", "give_up", "request")

    def __init__(self, request: AddRequest, give_up: float) -> None:
        self.request = request
        self.give_up = give_up
        self.answer: Answer | None = None


class _Waiter(_Call):
    """One call of `add`, whose thread waits for the answer."""

    __slots__ = ("woken",)

    def __init__(self, request: AddRequest, give_up: float) -> None:
        super().__init__(request, give_up)
        self.woken = threading.Lock()
        self.woken.acquire()

    def wake(self) -> None:
        try:
            self.woken.release()
        except RuntimeError:
            return  # it is awake already


class _Collector:
    """What the coroutines of one event loop want stored; touched by that loop alone, one write under way at a time."""

    def __init__(self, loop: "AbstractEventLoop", submit: "Callable[[_Batch], None]", deadline_s: float) -> None:
        self.loop = weakref.ref(loop)
        self._submit = submit
        self._deadline_s = deadline_s
        self._pending: deque[_Entry] = deque()
        self._engaged = False

    def collect(self, loop: "AbstractEventLoop", request: AddRequest) -> "Future[Answer | None]":
        future: Future[Answer | None] = loop.create_future()
        self._pending.append((_Call(request, time.monotonic() + self._deadline_s), future))
        if not self._engaged:
            self._engaged = True
            loop.call_soon(self._send, loop)
        return future

    def _send(self, loop: "AbstractEventLoop") -> None:
        entries: list[_Entry] = []
        jobs = 0
        while self._pending:
            call, future = self._pending[0]
            jobs += len(call.request.jobs)
            if entries and jobs > MOST_AT_ONCE:
                break
            self._pending.popleft()
            if not future.cancelled():
                entries.append((call, future))
        self._engaged = bool(entries)
        if entries:
            self._hand_on(_Batch(self, loop, entries))

    def _hand_on(self, batch: "_Batch") -> None:
        try:
            self._submit(batch)
        except RuntimeError as error:  # no thread could be started
            for call, _ in batch.entries:
                call.answer = EngineDown(f"No thread could be started to write to the store: {error}. Enqueue again.")
            batch.loop.call_soon(self.settle, batch)

    def settle(self, batch: "_Batch") -> None:
        for call, future in batch.entries:
            if not future.done():
                future.set_result(call.answer)
        self._send(batch.loop)


class _Batch:
    """What one loop wants stored in one write."""

    __slots__ = ("collector", "entries", "loop")

    def __init__(self, collector: _Collector, loop: "AbstractEventLoop", entries: "list[_Entry]") -> None:
        self.collector, self.loop, self.entries = collector, loop, entries

    def deliver(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self.collector.settle, self)
        except RuntimeError:
            if not self.loop.is_closed():  # with a closed loop, those who asked are gone
                raise


if TYPE_CHECKING:
    _Entry = tuple[_Call, Future[Answer | None]]


@cache
def _get_running_loop() -> "Callable[[], AbstractEventLoop]":
    """Import asyncio late, because most of those who import penstock have no use for it."""
    from asyncio import get_running_loop

    return get_running_loop


def _copy_of(error: EngineUnavailable) -> EngineUnavailable:
    """Give every caller an error of its own: raising one writes into it."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied


def _opened(answer: Answer) -> list[Added]:
    if isinstance(answer, Exception):
        raise answer
    return answer
