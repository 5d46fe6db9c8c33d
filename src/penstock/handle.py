"""Follow one job: wait for it, read it, cancel it."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from penstock.engine import MOST_AT_ONCE, Cancel, Engine, Subject
from penstock.model.durations import Duration, seconds
from penstock.model.errors import EngineDown, EngineUnavailable, JobFailed, JobNotFound, PenstockError, ResultTimeout
from penstock.model.job import Job, JobId, Progress
from penstock.model.states import FINAL, State

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["JobHandle", "Store", "Watch"]

R = TypeVar("R", covariant=True)

#: How long a caller waits for a result before it is told that no worker listens.
PATIENCE_S = 2.0

_POLL_S = 1.0
_SHORT_WAIT_S = 0.05
_FALSE_ALARM_S = 0.002
_STORE_PAUSE_S = 0.1


class Store(Protocol):
    """What a handle needs of the application."""

    @property
    def engine(self) -> Engine: ...

    @property
    def watch(self) -> "Watch": ...

    def decode_result(self, task: str, data: bytes) -> Any:
        """Read a result as the task's return annotation says."""
        ...


class JobHandle(Generic[R]):
    """One job, by its id. Every call reads the store anew; handles are cheap and safe to share between threads.

    Attributes:
        id: a UUIDv7 in text.
        task: the task's name.
        existing: whether enqueueing found a job that was there before (unique or idempotency key) and gave that one.
    """

    __slots__ = ("_store", "existing", "id", "task")

    def __init__(self, store: Store, id: JobId, task: str, existing: bool = False) -> None:
        self._store = store
        self.id = id
        self.task = task
        self.existing = existing

    def info(self) -> Job:
        """Read all that is known of the job.

        Raises:
            JobNotFound: it was deleted, or ended longer ago than it is kept.
        """
        job = self._store.engine.get([self.id])[0]
        if job is None:
            raise JobNotFound(self.id)
        return job

    def state(self) -> State:
        return self.info().state

    def progress(self) -> Progress | None:
        """Read how far it is, None if it never said."""
        return self.info().progress

    @property
    def degraded(self) -> str | None:
        """The fallback task that gave the result, None if the task itself did or has not ended."""
        return self.info().degraded

    def cancel(self) -> bool:
        """Cancel the job, or ask it to stop if it runs; answers whether that was still possible."""
        return self._store.engine.alter([self.id], Cancel())[0].refused is None

    def wait(self, timeout: Duration | None = None) -> State:
        """Wait until the job has ended and give its final state; None waits as long as it takes.

        A store that is unavailable for a while is asked again until the time is over.

        Raises:
            ResultTimeout: it did not end in time.
            EngineUnavailable: the store was not to be had when the time was over.
        """
        return self._ended(timeout).state

    def result(self, timeout: Duration | None = None) -> R:
        """Wait until the job has ended and give what its task returned, as its annotation says.

        After 2 s without a worker that knows the task, a warning says so on the logger `penstock`.

        Raises:
            JobFailed: it ended without a result.
            ResultTimeout: it did not end in time; the message says so when no worker knows the task.
        """
        return self._unpack(self._ended(timeout))

    async def ended(self, timeout: Duration | None = None) -> State:
        """Do `wait` in a coroutine."""
        return (await self._aended(timeout)).state

    async def aresult(self, timeout: Duration | None = None) -> R:
        """Do `result` in a coroutine; thousands may wait at once at the price of one thread."""
        return self._unpack(await self._aended(timeout))

    def __await__(self) -> Generator[Any, None, R]:
        """Wait for the result without a bound of time."""
        return self.aresult().__await__()

    def __repr__(self) -> str:
        return f"<JobHandle {self.id} of {self.task}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def _ended(self, timeout: Duration | None) -> Job:
        limit_s = None if timeout is None else seconds(timeout)
        begun = time.monotonic()
        job = self._follow(begun, _within(limit_s, PATIENCE_S))
        if not _has_ended(job) and limit_s != _within(limit_s, PATIENCE_S):
            self._warn_when_nobody_listens()
            job = self._follow(begun, limit_s)
        if isinstance(job, EngineUnavailable):
            raise job
        if job.state not in FINAL:
            raise ResultTimeout(self.id, job.state, limit_s or 0.0, self._hint())
        return job

    def _follow(self, begun: float, limit_s: float | None) -> Job | EngineUnavailable:
        """Read the job until it has ended or the time is over; gives what the last look gave."""
        while True:
            found = self._look()
            left_s = _POLL_S if limit_s is None else min(_POLL_S, begun + limit_s - time.monotonic())
            if _has_ended(found) or left_s <= 0:
                return found
            if isinstance(found, EngineUnavailable):
                time.sleep(min(left_s, _STORE_PAUSE_S))
            else:
                _wait_for_news(self._store.engine, (self.id,), left_s)

    def _look(self) -> Job | EngineUnavailable:
        try:
            return self.info()
        except EngineUnavailable as error:
            return error

    async def _aended(self, timeout: Duration | None) -> Job:
        import asyncio

        limit_s = None if timeout is None else seconds(timeout)
        begun = time.monotonic()
        waiting = self._store.watch.follow(self.id, asyncio.get_running_loop())
        try:
            await asyncio.wait([waiting], timeout=_within(limit_s, PATIENCE_S))
            if not waiting.done() and limit_s != _within(limit_s, PATIENCE_S):
                await asyncio.to_thread(self._warn_when_nobody_listens)
                left_s = None if limit_s is None else max(0.0, begun + limit_s - time.monotonic())
                await asyncio.wait([waiting], timeout=left_s)
            if waiting.done():
                return waiting.result()
            job, hint = await asyncio.to_thread(lambda: (self.info(), self._hint()))
        finally:
            waiting.cancel()
        if job.state not in FINAL:
            raise ResultTimeout(self.id, job.state, limit_s or 0.0, hint)
        return job

    def _unpack(self, job: Job) -> R:
        if job.state is not State.SUCCEEDED:
            error = job.error
            raise JobFailed(job.id, job.state, str(error) if error else None, error.traceback if error else "")
        result: R = self._store.decode_result(job.task, job.result or b"null")
        return result

    def _warn_when_nobody_listens(self) -> None:
        hint = self._hint()
        if hint:
            import logging

            logging.getLogger("penstock").warning("Job %s waits. %s", self.id, hint)

    def _hint(self) -> str:
        """Say that no live worker knows the task, if so; while the store is unavailable nobody can tell."""
        try:
            workers = self._store.engine.workers()
        except EngineUnavailable:
            return ""
        if any(self.task in worker.info.tasks for worker in workers):
            return ""
        return f"No worker that knows task {self.task!r} is running. Start one with `penstock worker -A module:app`."


class Watch:
    """One thread that waits for the jobs of any number of coroutines.

    The thread starts with the first job to follow and ends a second after the last.
    """

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._followers: dict[JobId, list[_Follower]] = {}
        self._fresh: list[JobId] = []
        self._news = threading.Event()
        self._alive = False

    def follow(self, id: JobId, loop: "AbstractEventLoop") -> "Future[Job]":
        """Give a future of the ended job; cancel it when nobody waits any more."""
        future: Future[Job] = loop.create_future()
        with self._lock:
            self._followers.setdefault(id, []).append((loop, future))
            self._fresh.append(id)
            starts, self._alive = not self._alive, True
        self._news.set()
        if starts:
            self._start()
        return future

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name="penstock-watch", daemon=True).start()
        except RuntimeError as error:
            unstarted = EngineDown(f"No thread could be started to wait for results: {error}. Ask again.")
            with self._lock:
                self._alive = False
            self._fail(unstarted)

    def _run(self) -> None:
        """Look and wait until nobody follows; whatever ends the thread is told to those who still do."""
        try:
            self._look_and_wait()
        except BaseException as error:
            import logging

            with self._lock:
                self._alive = False
            self._fail(
                error if isinstance(error, Exception) else EngineDown(f"Waiting was interrupted: {error!r}. Ask again.")
            )
            logging.getLogger("penstock").error("The thread that waits for results ended.", exc_info=error)

    def _look_and_wait(self) -> None:
        next_full_s = 0.0
        while self._remains():
            now = time.monotonic()
            full = now >= next_full_s
            if full:
                next_full_s = now + _POLL_S
            ids = self._ids(full)
            try:
                self._look(ids)
                if self._wait():
                    next_full_s = 0.0
            except EngineUnavailable:
                next_full_s = 0.0
                time.sleep(_STORE_PAUSE_S)
            except PenstockError as error:
                self._fail(error)

    def _remains(self) -> bool:
        """Say whether there is somebody to wait for; linger a second before the thread ends."""
        with self._lock:
            if self._followers:
                return True
            self._news.clear()
        self._news.wait(_POLL_S)
        with self._lock:
            self._alive = bool(self._followers)
            return self._alive

    def _ids(self, full: bool) -> list[JobId]:
        with self._lock:
            fresh, self._fresh = self._fresh, []
            if not full:
                return fresh
            for id, followers in list(self._followers.items()):
                self._followers[id] = [follower for follower in followers if not follower[1].done()]
                if not self._followers[id]:
                    del self._followers[id]
            return list(self._followers)

    def _look(self, ids: Sequence[JobId]) -> None:
        """Answer those whose job has ended or is not known."""
        for start in range(0, len(ids), MOST_AT_ONCE):
            some = ids[start : start + MOST_AT_ONCE]
            jobs = zip(some, self._engine().get(some), strict=True)
            self._answer({id: job or JobNotFound(id) for id, job in jobs if job is None or job.state in FINAL})

    def _wait(self) -> bool:
        """Wait a short time, so that whoever comes meanwhile is soon waited for too; answers whether there is news."""
        with self._lock:
            ids = tuple(self._followers)[:MOST_AT_ONCE]
        return bool(ids) and _wait_for_news(self._engine(), ids, _SHORT_WAIT_S)

    def _fail(self, error: Exception) -> None:
        with self._lock:
            ids = list(self._followers)
        self._answer(dict.fromkeys(ids, error))

    def _answer(self, found: "dict[JobId, Job | Exception]") -> None:
        """Give each loop all its answers in one call."""
        answers: dict[AbstractEventLoop, list[tuple[Future[Job], Job | Exception]]] = defaultdict(list)
        with self._lock:
            for id, answer in found.items():
                for loop, future in self._followers.pop(id, ()):
                    answers[loop].append((future, answer))
        for loop, pairs in answers.items():
            try:
                loop.call_soon_threadsafe(_settle, pairs)
            except RuntimeError:
                if not loop.is_closed():  # with a closed loop, those who asked are gone
                    raise


if TYPE_CHECKING:
    _Follower = tuple[AbstractEventLoop, Future[Job]]


def _settle(pairs: "Iterable[tuple[Future[Job], Job | Exception]]") -> None:
    for future, answer in pairs:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _has_ended(found: Job | EngineUnavailable) -> bool:
    return not isinstance(found, EngineUnavailable) and found.state in FINAL


def _within(limit_s: float | None, bound_s: float) -> float:
    return bound_s if limit_s is None else min(limit_s, bound_s)


def _wait_for_news(engine: Engine, ids: tuple[JobId, ...], timeout_s: float) -> bool:
    """Wait for jobs to end; answers whether the engine says that something happened.

    Engines may wake their callers for nothing; a pause keeps one that always does from spinning.
    """
    begun = time.monotonic()
    engine.wait(Subject(jobs=ids), 0, timeout_s)
    waited_s = time.monotonic() - begun
    if waited_s < min(timeout_s, _FALSE_ALARM_S):
        time.sleep(_FALSE_ALARM_S - waited_s)
    return waited_s < timeout_s
