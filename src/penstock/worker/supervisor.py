"""The supervisor of a worker: starts, watches and restarts processes, passes signals on. It runs no user code."""

import contextlib
import faulthandler
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from penstock.engine import EngineInfo, WorkerInfo
from penstock.engines.clock import SystemClock
from penstock.engines.open import open_engine
from penstock.model.durations import spell
from penstock.model.errors import SettingsInvalid
from penstock.model.job import ProcessId
from penstock.model.outcome import Ending
from penstock.promises import promise
from penstock.serving import birth_of
from penstock.settings import Settings
from penstock.worker.board import BoardState
from penstock.worker.channel import Drained, Fault, Hello, Plan, Quiet, Unfit, Void
from penstock.worker.forensics import Remains, collect_strays
from penstock.worker.heart import DrainAsked, Enrolled, Heart, News, NothingLeft, StoreUnusable, Voided
from penstock.worker.logs import set_up_logging
from penstock.worker.member import GIVE_BACK_S, Member
from penstock.worker.queues import read_queues
from penstock.worker.tender import Tender, new_process_id
from penstock.worker.tending import Tending
from penstock.worker.verdict import STOPPED, Verdict

log = logging.getLogger("penstock.worker")

#: Exit statuses of `run`.
CLEAN, FAILED, FAULT, STORE_UNUSABLE, UNFIT, STUCK = 0, 1, 2, 3, 4, 5

TICK_S = 0.25
MEMORY_EVERY_S = 1.0
#: By when the worker has ended after its shutdown timeout, or after a second signal: `GIVE_BACK_S` for the processes to
#: give their jobs back, the rest to bury those that were killed and to tell the store.
LAST_S = 2.0
#: How much of that is kept for the store.
TELLING_S = 0.5
LONGEST_BACKOFF_S = 30.0
#: The same for processes that were killed from outside while they started: nothing is wrong with the application.
LONGEST_BACKOFF_AFTER_KILL_S = 0.5
#: A process that has worked so long, or has finished a job, was no failed start.
LIVED_S = 2.0
CLOSING_S = 5.0


def run(settings: Settings) -> int:
    """Work on jobs until told to stop.

    SIGTERM and SIGINT finish what runs, a second one gives it back at once; SIGTSTP stops claiming, SIGHUP replaces the
    processes one by one, SIGTTIN writes all stacks to the log. Call it from the main thread of a process of its own.
    It returns at most two seconds after the shutdown timeout, or after the second signal.

    Returns:
        0 after a clean end; 1 after a failure of the worker itself; 2 if the application or a setting cannot be used;
        3 if the store cannot be used; 4 if a job found this worker unfit; 5 if the application was not imported in
        time.

    Raises:
        SettingsInvalid: no application was named.
    """
    if settings.app is None:
        raise SettingsInvalid(["app is not set: give -A module:app or set $PENSTOCK_APP."])
    set_up_logging(settings.log_level, settings.log_format)
    with _subreaper():
        return Supervisor(settings).run()


def plan_of(settings: Settings) -> Plan:
    """Make what the processes need of the settings. Only a URL given as an argument outdoes the application's."""
    return Plan(
        app=settings.app or "",
        url=settings.url if settings.source("url") == "argument" else None,
        queues=None if settings.queues is None else read_queues(settings.queues),
        places={
            "thread": settings.slots,
            "loop": settings.coroutines,
            "process": settings.children,
            "command": settings.slots,
        },
        lease_ms=round(settings.lease * 1000),
        shutdown_ms=round(settings.shutdown_timeout * 1000),
        start_ms=round(settings.start_timeout * 1000),
        max_jobs=settings.max_jobs,
        max_memory=settings.max_memory,
        reload=settings.reload,
        log_level=settings.log_level,
        log_format=settings.log_format,
    )


class Supervisor:
    """Keeps a number of processes at work, in one loop; heartbeat and maintenance have threads of their own."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._plan = settings, plan_of(settings)
        self.worker = new_process_id()
        self._members: dict[int, Member] = {}
        self._starts: list[float] = [0.0] * settings.processes
        self._failed_starts = 0
        self._hello: Hello | None = None
        self._heart: Heart | None = None
        self._tending: Tending | None = None
        self._tender = Tender(lambda: not self._closing)
        self._news: deque[News] = deque()
        self._signals: deque[int] = deque()
        self._announced = self._stopping = self._quiet = self._told_quiet = self._closing = False
        self._ends_at: float | None = None
        self._status = CLEAN
        self._rolling: list[Member] = []
        self._measured_at = 0.0
        self._sources: dict[str, int] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        # `nohup` has the signal ignored
        self._follows_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def run(self) -> int:
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._woken)
        with self._signalled():
            try:
                while (self._members or not self._stopping) and not self._is_over():
                    self._start_due()
                    self._turn()
                self._abandon()
                self._close()
            finally:
                for member in list(self._members.values()):
                    member.kill(STOPPED)
        return self._status

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._pause_s()):
            key.data()
        while self._signals:
            self._take_signal(self._signals.popleft())
        while self._news:
            self._hear(self._news.popleft())
        self._watch()

    def _pause_s(self) -> float:
        """Look at the boards four times a second; more often while something is about to be due."""
        now = time.monotonic()
        start_s = min(self._starts, default=now + TICK_S) - now
        stopping = any(member.stopping for member in self._members.values())
        return max(0.0, min(0.05 if stopping else TICK_S, start_s if not self._stopping else TICK_S))

    def _is_over(self) -> bool:
        """Say whether processes that were killed must be left as they are for the end to come in time."""
        return self._ends_at is not None and time.monotonic() > self._ends_at - TELLING_S

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_in.recv(4096):
                continue

    def _tell(self, news: News) -> None:
        """Take news from another thread."""
        self._news.append(news)
        with contextlib.suppress(BlockingIOError):
            self._wake_out.send(b".")

    # -- processes come ----------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for due in [due for due in self._starts if due <= now and not self._stopping]:
            self._starts.remove(due)
            self._start()

    def _start(self) -> None:
        member = Member(self._plan)
        self._members[member.pid] = member
        self._selector.register(member.channel, selectors.EVENT_READ, lambda: self._listen(member))
        self._selector.register(member.handle, selectors.EVENT_READ, lambda: self._ended(member))

    def _listen(self, member: Member) -> None:
        messages = member.channel.receive()
        if messages is None:
            self._selector.unregister(member.channel)
            return
        for message in messages:
            match message:
                case Hello():
                    self._greet(member, message)
                case Fault():
                    self._take_fault(message.message)
                case Drained():
                    log.debug("process %d has drained: %s", member.pid, message.reason)
                case Unfit():
                    self._end_unfit(message.reason)
                case Void():
                    member.is_void = True
                    log.warning("process %d has lost its lease and is replaced; others have its jobs", member.pid)

    def _greet(self, member: Member, hello: Hello) -> None:
        member.greeted = True
        if self._hello is None and (fault := member.has_no_room()) is not None:
            self._fail(FAULT, fault)
            return
        self._watch_sources(hello.sources)
        if member.stopping:
            return
        if self._hello is None:
            self._begin_heart(hello)
        self._hello = hello
        if self._heart is not None and self._tending is not None:
            self._tending.tasks = hello.queues
            self._heart.enrol(member.id, self._introduce(hello))

    def _begin_heart(self, hello: Hello) -> None:
        """Open the store, now that a process has told which it is."""
        if hello.url.startswith("memory:"):
            self._fail(
                FAULT,
                f"{hello.url} is private to each process, so a worker finds no jobs in it; use sqlite:///penstock.db.",
            )
            return
        lease_ms, queues = self._plan.lease_ms, self._names()

        def open_store() -> Any:
            return open_engine(hello.url)

        self._heart = Heart(open_store, self._tender, self._introduce(hello), self._tell)
        self._tending = Tending(
            open_store,
            self._tender,
            self._heart,
            self._tell,
            lease_ms=lease_ms,
            burst=self._settings.burst,
            queues=queues,
            tasks=hello.queues,
            app=self._plan.app,
        )
        self._heart.begin()

    def _introduce(self, hello: Hello) -> WorkerInfo:
        """Say who this worker is, with the tasks that its newest process knows."""
        return WorkerInfo(
            id=self.worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            boot=SystemClock().boot(),
            birth=birth_of(os.getpid()),
            version=_version(),
            queues=self._names(),
            tasks=tuple(sorted(hello.tasks)),
            slots=self._settings.slots * self._settings.processes,
            lease_ms=self._plan.lease_ms,
        )

    def _names(self) -> tuple[str, ...] | None:
        return None if self._plan.queues is None else tuple(name for name, _ in self._plan.queues)

    def _take_fault(self, message: str) -> None:
        """End if the application was never good; go on trying if it was, as the next version of it may be."""
        if self._hello is None:
            self._fail(FAULT, message)
        else:
            log.error("a new process cannot use the application and is started again until it can: %s", message)

    # -- processes go ------------------------------------------------------------------------------------------------

    def _ended(self, member: Member) -> None:
        self._selector.unregister(member.handle)
        if member.channel in self._selector.get_map():
            self._listen_to_the_last(member)
        remains, death = member.bury()
        del self._members[member.pid]
        verdict = member.verdict or _verdict(member, remains)
        if member.greeted and self._heart is not None:
            self._heart.report(death, verdict)
        if member.is_stuck and not member.greeted:
            self._take_stuck()
        elif remains.code != 0 and not self._stopping:
            self._tell_end(member, remains)
        if not self._stopping:
            self._starts.append(time.monotonic() + self._backoff_s(member, remains))
        member.close()

    def _take_stuck(self) -> None:
        """End if the application was never imported; go on trying if it was, as the next version of it may be."""
        if self._hello is None:
            timeout = spell(self._settings.start_timeout)
            self._fail(STUCK, f"{self._plan.app!r} was not imported within {timeout} (--start-timeout).")

    def _tell_end(self, member: Member, remains: Remains) -> None:
        charged = member.verdict is None and not member.is_void and member.jobs()
        toll = f"; the jobs it ran are charged a crash: {charged}" if charged else ""
        log.error("process %d %s and is replaced%s", member.pid, _how(member, remains), toll)

    def _listen_to_the_last(self, member: Member) -> None:
        """Hear what an ended process had said before its end; a descendant may still hold its end of the line."""
        while member.channel in self._selector.get_map() and member.channel.has_more():
            self._listen(member)
        if member.channel in self._selector.get_map():
            self._selector.unregister(member.channel)

    def _backoff_s(self, member: Member, remains: Remains) -> float:
        """Restart at once what had done work; what fails again and again at its start waits up to 30 s."""
        lived_s = time.monotonic() - member.began_at if member.began_at is not None else 0.0
        if remains.code == 0 or lived_s > LIVED_S or member.board.has_ended_jobs:
            self._failed_starts = 0
            return 0.0
        self._failed_starts += 1
        longest_s = LONGEST_BACKOFF_AFTER_KILL_S if remains.code == -signal.SIGKILL else LONGEST_BACKOFF_S
        return 0.0 if self._failed_starts == 1 else min(longest_s, 0.125 * 2.0 ** min(self._failed_starts, 10))

    # -- watching ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        now = time.monotonic()
        if self._ends_at is not None and now > self._ends_at - LAST_S and self._tending is not None:
            self._tending.end()
        measure = now - self._measured_at >= MEMORY_EVERY_S
        for member in list(self._members.values()):
            member.keep_time(now)
            if member.began_at is not None:
                member.check_jobs()
            if measure and member.greeted:
                self._measure(member, now)
        self._watch_starts(now)
        if measure:
            self._measured_at = now
            collect_strays(self._members)
            self._fence(now)
            self._notice_changed_sources(now)
        self._roll()
        self._tell_quiet()

    def _watch_starts(self, now: float) -> None:
        """Mind the oldest of the processes that start: what one cannot import, the others cannot either."""
        starting = next((member for member in self._members.values() if not member.greeted), None)
        if starting is not None and not starting.stopping:
            starting.keep_starting(now, self._settings.start_timeout)

    def _tell_quiet(self) -> None:
        """Say that no more jobs are claimed, once that is so."""
        working = [member for member in self._members.values() if member.began_at is not None]
        if self._quiet and not self._told_quiet and all(member.board.state >= BoardState.QUIET for member in working):
            self._told_quiet = True
            log.warning("quiet: no more jobs are claimed; SIGTERM ends this worker, only a new one claims again")

    def _measure(self, member: Member, now: float) -> None:
        member.check_memory()
        if member.is_frozen(now):
            log.error(
                "process %d has been stopped for too long (SIGSTOP or a debugger) and is killed and replaced; its jobs "
                "run again as soon as the store has heard of it: %s",
                member.pid,
                member.jobs() or "none",
            )
            if self._heart is not None:
                self._heart.forsake(member.id)
            member.kill(Verdict(Ending.LOST, "its process was stopped from outside"))

    def _fence(self, now: float) -> None:
        """End running jobs while the leases still hold, when the store has not answered for two thirds of one.

        A process that holds nothing but undelivered outcomes keeps trying, because the fence decides.
        """
        if self._heart is None or now - self._heart.renewed_at < self._plan.lease_ms / 1500:
            return
        for member in self._members.values():
            if member.began_at is not None and member.verdict is None and member.board.running():
                log.error(
                    "the store has not answered for two thirds of a lease; process %d is killed before others take its "
                    "jobs over: %s; they go back free of charge",
                    member.pid,
                    member.jobs(),
                )
                member.kill(Verdict(Ending.RELEASED, "its worker lost the store"))

    def _roll(self) -> None:
        """Replace the next process once those before it are back at work."""
        self._rolling = [member for member in self._rolling if member.pid in self._members]
        settled = not self._starts and all(member.began_at is not None for member in self._members.values())
        if self._rolling and settled and not any(member.stopping for member in self._members.values()):
            self._rolling[0].stop(self._settings.shutdown_timeout)

    def _watch_sources(self, sources: tuple[str, ...]) -> None:
        for source in sources:
            self._sources.setdefault(source, _changed_ns(source))

    def _notice_changed_sources(self, now: float) -> None:
        changed = [source for source, then in self._sources.items() if _changed_ns(source) != then]
        if changed:
            log.warning("%s changed; processes are replaced", ", ".join(changed))
            self._sources = {source: _changed_ns(source) for source in self._sources}
            self._starts, self._failed_starts = [now for _ in self._starts], 0
            self._rolling = list(self._members.values())

    # -- news and signals --------------------------------------------------------------------------------------------

    def _hear(self, news: News) -> None:
        match news:
            case Enrolled(processes, store):
                if store is not None and self._tending is not None:
                    self._announce(store)
                    self._tending.begin()
                self._let_go(processes)
            case Voided(processes):
                for member in self._members.values():
                    if member.id in processes:
                        log.error(
                            "the lease of process %d is void, so others have its jobs; it is killed and replaced",
                            member.pid,
                        )
                        member.kill(STOPPED)
            case DrainAsked():
                self._stop(None, "asked to drain")
            case NothingLeft(left):
                self._stop(self._settings.shutdown_timeout, left)
            case StoreUnusable(message):
                self._fail(STORE_UNUSABLE, message)

    def _let_go(self, processes: tuple[ProcessId, ...]) -> None:
        for member in self._members.values():
            if member.id in processes and not member.stopping:
                if self._quiet:
                    member.send(Quiet())
                member.go(self.worker)

    def _take_signal(self, number: int) -> None:
        log.debug("got signal %s", signal.Signals(number).name)
        match number:
            case signal.SIGTERM | signal.SIGINT if self._stopping:
                log.warning("told to stop again: running jobs are given back now, free of charge")
                self._end_within(0.0)
                for member in self._members.values():
                    member.release()
            case signal.SIGTERM | signal.SIGINT:
                self._stop(self._settings.shutdown_timeout, signal.Signals(number).name)
            case signal.SIGTSTP:
                self._quiet = True
                for member in self._members.values():
                    member.send(Quiet())
            case signal.SIGTTIN:
                log.warning("SIGTTIN: the stacks of the supervisor stand above, those of its processes follow")
                for member in self._members.values():
                    member.show_stacks()
            case signal.SIGHUP if self._has_lost_terminal():
                self._stop(self._settings.shutdown_timeout, "its terminal has gone")
            case signal.SIGHUP:
                log.warning("processes are replaced one by one")
                self._rolling = list(self._members.values())

    def _has_lost_terminal(self) -> bool:
        """Tell a hangup from an order: a worker that was started by hand ends with its terminal."""
        return self._follows_terminal and not _has_terminal()

    def _stop(self, timeout_s: float | None, reason: str) -> None:
        if self._stopping:
            return
        held = sum(len(member.board.running()) for member in self._members.values())
        log.info("stopping (%s)%s", reason, _patience(held, timeout_s))
        self._stopping = True
        if timeout_s is not None:
            self._end_within(timeout_s)
        for member in self._members.values():
            if member.began_at is None:  # it holds nothing, and its import may take for ever
                member.release()
            else:
                member.stop(timeout_s)

    def _end_within(self, timeout_s: float) -> None:
        """Be gone `LAST_S` after the time that jobs are given."""
        self._ends_at = min(self._ends_at or float("inf"), time.monotonic() + timeout_s + LAST_S)

    def _end_unfit(self, reason: str) -> None:
        if self._status == CLEAN:
            self._status = UNFIT
            self._stop(self._settings.shutdown_timeout, f"unfit: {reason}")

    def _fail(self, status: int, message: str) -> None:
        """End the worker for a reason that a person must mend."""
        if self._status == CLEAN:
            self._status = status
            if self._announced:
                log.error("%s", message)
            else:  # a mistake of the one who started it, who is told as by any other command
                sys.stderr.write(f"penstock: {message}\n")
        self._stopping = True
        self._end_within(0.0)
        for member in self._members.values():
            member.release(GIVE_BACK_S if member.began_at is not None else 0.0)

    def _announce(self, store: EngineInfo) -> None:
        if self._hello is None:
            return
        self._announced = True
        queues = self._settings.queues
        tasks = sorted(self._hello.tasks)
        named = ", ".join(tasks[:10]) + (", ..." if len(tasks) > 10 else "")
        log.info(
            "penstock %s at %s (%s, %s): queues %s, %d tasks (%s), %d processes x %d slots",
            _version(),
            store.url,
            store.kind,
            promise(store.durability),
            "all" if queues is None else ",".join(queues),
            len(tasks),
            named or "none",
            self._settings.processes,
            self._settings.slots,
        )

    def _abandon(self) -> None:
        """Leave processes that not even SIGKILL has ended to their leases: their jobs may still be running."""
        for member in list(self._members.values()):
            log.error(
                "process %d does not end, though it was killed (it may hang in the kernel, on a disk or a network file "
                "system); its jobs are left to its lease, which lapses in %s: %s",
                member.pid,
                spell(self._plan.lease_ms / 1000),
                member.jobs() or "none runs",
            )
            member.kill(STOPPED)
            if self._heart is not None:
                self._heart.forsake(member.id)

    def _close(self) -> None:
        """Report the last processes gone, so that nothing waits for a lease to lapse."""
        until = min(time.monotonic() + CLOSING_S, self._ends_at or float("inf"))
        if self._tending is not None and self._tending.begun:
            self._tending.close(until - time.monotonic())
        if self._heart is not None and not self._heart.close(until - time.monotonic()):
            log.warning(
                "the store could not be told in time that this worker has ended; what its processes held is handed on "
                "when their leases lapse, in %s",
                spell(self._plan.lease_ms / 1000),
            )
        self._closing = True
        if self._announced or self._status == CLEAN:
            log.info("stopped")

    @contextlib.contextmanager
    def _signalled(self) -> Iterator[None]:
        """Take signals as events of the loop."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTIN)
        before = {number: signal.signal(number, lambda got, _: self._signals.append(got)) for number in numbers}
        wakeup = signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        faulthandler.register(signal.SIGTTIN, all_threads=True, chain=True)
        try:
            yield
        finally:
            faulthandler.unregister(signal.SIGTTIN)
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)


def _patience(held: int, timeout_s: float | None) -> str:
    if not held:
        return ""
    given = "as long as it takes" if timeout_s is None else spell(timeout_s)
    return f"; {held} running {'job has' if held == 1 else 'jobs have'} {given} to finish"


def _verdict(member: Member, remains: Remains) -> Verdict:
    """Judge a process that ended without being killed by its supervisor."""
    if remains.code >= 0 and member.stopping:
        return STOPPED
    return Verdict(Ending.CRASHED, f"its process {_how(member, remains)}")


def _how(member: Member, remains: Remains) -> str:
    if member.verdict is not None:
        return f"was killed by its supervisor: {member.verdict.message}"
    return remains.story()


@contextlib.contextmanager
def _subreaper() -> Iterator[None]:
    """Become the parent of what ended processes leave behind, so that it can be ended too.

    Source: prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    if sys.platform != "linux":
        yield
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


_PR_SET_CHILD_SUBREAPER = 36


def _has_terminal() -> bool:
    """Say whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _changed_ns(source: str) -> int:
    try:
        return Path(source).stat().st_mtime_ns
    except OSError:
        return 0


def _version() -> str:
    try:
        return version("penstock")
    except PackageNotFoundError:
        return "0"


__all__ = ["run"]
