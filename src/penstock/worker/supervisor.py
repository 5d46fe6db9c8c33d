"""The supervisor of a worker: starts processes, hears them, passes signals on and ends. It runs no user code."""

import logging
import selectors
import signal
import sys
import time
from collections import deque

from msgspec.structs import replace

from penstock.engine import WorkerInfo
from penstock.model.durations import spell
from penstock.model.job import ProcessId
from penstock.settings import Settings
from penstock.worker.board import BoardState
from penstock.worker.channel import Broken, Drained, Fault, Fit, Hello, Quiet, Resume, Unfit, Void
from penstock.worker.forensics import Remains
from penstock.worker.heart import DrainAsked, Enrolled, News, NothingLeft, StoreUnusable, Voided
from penstock.worker.introduction import announce, introduce, plan_of
from penstock.worker.member import GIVE_BACK_S, Member
from penstock.worker.signals import Signals
from penstock.worker.starts import Starts
from penstock.worker.tender import new_process_id
from penstock.worker.upkeep import Upkeep
from penstock.worker.verdict import STOPPED
from penstock.worker.watch import Sources, Watch

__all__ = ["Supervisor"]

log = logging.getLogger("penstock.worker")

#: Exit statuses of a worker.
CLEAN, FAILED, FAULT, STORE_UNUSABLE, UNFIT, STUCK = 0, 1, 2, 3, 4, 5

#: How often the boards are looked at: while a process starts or holds claims, and while all are idle.
TICK_S, IDLE_TICK_S = 0.25, 1.0
#: By when the worker has ended after its shutdown timeout, or after a second signal: `GIVE_BACK_S` for the processes to
#: give their jobs back, the rest to bury those that were killed and to tell the store.
LAST_S = 2.0
#: How much of that is kept for the store.
TELLING_S = 0.5
#: A process that has worked so long, or has finished a job, was no failed start.
LIVED_S = 2.0
CLOSING_S = 5.0
#: How long it may take to tell people of what was buried last.
LAST_WORDS_S = 15.0


class Supervisor:
    """Keeps a number of processes at work, in one loop; heartbeat and maintenance have threads of their own."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._plan = settings, plan_of(settings)
        self.worker = new_process_id()
        self._members: dict[int, Member] = {}
        self._starts = Starts(settings.processes)
        self._hello: Hello | None = None
        self._info: WorkerInfo | None = None
        self._upkeep = Upkeep(self._plan, self._tell, burst=settings.burst)
        self._news: deque[News] = deque()
        self._signals = Signals()
        self._announced = self._stopping = self._quiet = self._told_quiet = False
        self._ends_at: float | None = None
        self._status = CLEAN
        self._rolling: list[Member] = []
        self._unfit: dict[int, str] = {}
        self._watch, self._sources = Watch(self._plan, self._members), Sources()
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        self._selector.register(self._signals, selectors.EVENT_READ, self._signals.woken)
        with self._signals.taken():
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
        while self._signals.got:
            self._take_signal(self._signals.got.popleft())
        while self._news:
            self._hear(self._news.popleft())
        self._look()

    def _pause_s(self) -> float:
        """Look at the boards more often while something is about to be due."""
        members = self._members.values()
        if any(member.stopping for member in members):
            tick_s = 0.05
        elif all(member.began_at is not None and not member.board.held for member in members):
            tick_s = IDLE_TICK_S
        else:
            tick_s = TICK_S
        return tick_s if self._stopping else max(0.0, min(tick_s, self._starts.next_at - time.monotonic()))

    def _is_over(self) -> bool:
        """Say whether processes that were killed must be left as they are for the end to come in time."""
        return self._ends_at is not None and time.monotonic() > self._ends_at - TELLING_S

    def _tell(self, news: News) -> None:
        """Take news from another thread."""
        self._news.append(news)
        self._signals.wake()

    # -- processes come ----------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        """Start what is due; a signal does not wait until hundreds of processes have been started."""
        now = time.monotonic()
        while not self._stopping and not self._signals.got and self._starts.take(now):
            try:
                member = Member(self._plan)
            except OSError as error:  # those at work need this worker, whatever the machine lacks for another
                pause_s = self._starts.put_off()
                log.error("no process can be started, which is tried again in %s: %s", spell(pause_s), error)
            else:
                self._take_on(member)

    def _take_on(self, member: Member) -> None:
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
                case Broken():
                    self._end_broken(message.reason)
                case Unfit():
                    self._take_unfit(member, message.reason)
                case Fit():
                    self._take_fit(member)
                case Void():
                    member.is_void = True
                    log.warning("process %d has lost its lease and is replaced; others have its jobs", member.pid)

    def _greet(self, member: Member, hello: Hello) -> None:
        member.greeted = True
        if self._hello is None and (fault := member.has_no_room()) is not None:
            self._fail(FAULT, fault)
            return
        self._sources.add(hello.sources)
        if member.stopping:
            return
        info, is_first = introduce(self.worker, self._settings, self._plan, hello), self._hello is None
        self._info = info = replace(info, unfit=next(iter(self._unfit.values()), ""))
        self._hello = hello
        if not is_first:
            self._upkeep.enrol(member.id, info, hello)
        elif hello.url.startswith("memory:"):
            why = "is private to each process, so a worker finds no jobs in it; use sqlite:///penstock.db."
            self._fail(FAULT, f"{hello.url} {why}")
        else:
            self._upkeep.begin(hello, info)
            self._upkeep.enrol(member.id, info, hello)

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
        self._forget_unfit(member)
        verdict = member.judge(remains)
        if member.greeted:
            self._upkeep.report(death, verdict)
        if member.is_stuck and not member.greeted:
            self._take_stuck()
        elif remains.code != 0 and not self._stopping:
            self._tell_end(member, remains)
        if not self._stopping:
            self._starts.add(self._pause_before_next_s(member, remains))
        member.close()

    def _pause_before_next_s(self, member: Member, remains: Remains) -> float:
        """Restart at once what had done work."""
        lived_s = time.monotonic() - member.began_at if member.began_at is not None else 0.0
        if remains.code == 0 or lived_s > LIVED_S or member.board.has_ended_jobs:
            self._starts.succeeded()
            return 0.0
        return self._starts.failed(killed=remains.code == -signal.SIGKILL)

    def _take_stuck(self) -> None:
        """End if the application was never imported; go on trying if it was, as the next version of it may be."""
        if self._hello is None:
            timeout = spell(self._settings.start_timeout)
            self._fail(STUCK, f"{self._plan.app!r} was not imported within {timeout} (--start-timeout).")

    def _tell_end(self, member: Member, remains: Remains) -> None:
        charged = member.verdict is None and not member.is_void and member.jobs()
        toll = f"; the jobs it ran are charged a crash: {charged}" if charged else ""
        log.error("process %d %s and is replaced%s", member.pid, member.story(remains), toll)

    def _listen_to_the_last(self, member: Member) -> None:
        """Hear what an ended process had said before its end; a descendant may still hold its end of the line."""
        while member.channel in self._selector.get_map() and member.channel.has_more():
            self._listen(member)
        if member.channel in self._selector.get_map():
            self._selector.unregister(member.channel)

    # -- watching ----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        now = time.monotonic()
        if self._ends_at is not None and now > self._ends_at - LAST_S:
            self._upkeep.end_tending()
        if self._watch.look(now, self._upkeep) and (changed := self._sources.take_changed()):
            log.warning("%s changed; processes are replaced", ", ".join(changed))
            self._starts.hasten(now)
            self._rolling = list(self._members.values())
        self._roll()
        self._tell_quiet()

    def _tell_quiet(self) -> None:
        """Say that no more jobs are claimed, once that is so."""
        working = [member for member in self._members.values() if member.began_at is not None]
        if self._quiet and not self._told_quiet and all(member.board.state >= BoardState.QUIET for member in working):
            self._told_quiet = True
            log.warning("quiet: no more jobs are claimed; SIGTERM ends this worker, only a new one claims again")

    def _roll(self) -> None:
        """Replace the next process once those before it are back at work."""
        self._rolling = [member for member in self._rolling if member.pid in self._members]
        settled = not self._starts and all(member.began_at is not None for member in self._members.values())
        if self._rolling and settled and not any(member.stopping for member in self._members.values()):
            self._rolling[0].stop(self._settings.shutdown_timeout)

    # -- news and signals --------------------------------------------------------------------------------------------

    def _hear(self, news: News) -> None:
        match news:
            case Enrolled(processes, store):
                if store is not None:
                    self._announced = True
                    if self._hello is not None:
                        announce(self._settings, self._hello, store)
                    self._upkeep.begin_tending()
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
                if self._quiet or self._unfit:
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
            case signal.SIGHUP if self._signals.has_lost_terminal():
                self._stop(self._settings.shutdown_timeout, "its terminal has gone")
            case signal.SIGHUP:
                log.warning("processes are replaced one by one")
                self._rolling = list(self._members.values())

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

    def _end_broken(self, reason: str) -> None:
        if self._status == CLEAN:
            self._status = STORE_UNUSABLE
            log.error("%s", reason)
            self._stop(self._settings.shutdown_timeout, "the store cannot be used")

    # -- fitness -----------------------------------------------------------------------------------------------------

    def _take_unfit(self, member: Member, reason: str) -> None:
        """Take the machine out of service: what one process finds concerns all of them."""
        if self._status != CLEAN or self._stopping:
            return
        self._unfit[member.pid] = reason
        if self._settings.when_unfit == "exit" or self._settings.burst:
            self._status = UNFIT
            self._stop(self._settings.shutdown_timeout, f"unfit: {reason}")
            return
        log.error(
            "unfit: %s; this worker claims no more until its health checks pass, which is looked at every %s",
            reason,
            spell(self._settings.health_period),
        )
        for one in self._members.values():
            one.send(Quiet())
        self._present()

    def _take_fit(self, member: Member) -> None:
        if member.pid in self._unfit:
            self._forget_unfit(member)
        elif not (self._unfit or self._quiet):
            member.send(Resume())

    def _forget_unfit(self, member: Member) -> None:
        """Go back to work when no process is unfit any more."""
        if self._unfit.pop(member.pid, None) is None or self._unfit or self._stopping:
            return
        log.warning("fit again: this worker claims jobs")
        self._present()
        if not self._quiet:
            for one in self._members.values():
                one.send(Resume())

    def _present(self) -> None:
        """Tell the store whether this worker is fit."""
        if self._info is not None:
            self._info = replace(self._info, unfit=next(iter(self._unfit.values()), ""))
            self._upkeep.present(self._info)

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
            self._upkeep.forsake(member.id)

    def _close(self) -> None:
        now, ends_at = time.monotonic(), self._ends_at or float("inf")
        self._upkeep.close(min(now + CLOSING_S, ends_at), told_by=min(now + LAST_WORDS_S, ends_at))
        if self._announced or self._status == CLEAN:
            log.info("stopped")


def _patience(held: int, timeout_s: float | None) -> str:
    if not held:
        return ""
    given = "as long as it takes" if timeout_s is None else spell(timeout_s)
    return f"; {held} running {'job has' if held == 1 else 'jobs have'} {given} to finish"
