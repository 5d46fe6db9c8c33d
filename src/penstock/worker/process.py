"""One process of a worker: imports the application, then pumps jobs from the store through its runners.

The main thread holds the line to the supervisor and spawns children; it lives as long as the process, which
the kernel's death signal for those children depends on.
"""

import faulthandler
import logging
import os
import queue
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from penstock.client import Penstock
from penstock.engine import Engine
from penstock.engines.clock import SystemClock
from penstock.engines.open import open_engine
from penstock.loading import import_fault, load_app, own_lines
from penstock.model.errors import EngineError, LeaseLost
from penstock.model.job import ProcessId
from penstock.task import Task
from penstock.worker import stacks
from penstock.worker.board import Board, BoardState
from penstock.worker.breakers import Breakers
from penstock.worker.channel import (
    LONGEST_FAULT,
    Broken,
    Channel,
    Drained,
    Fault,
    Fit,
    Go,
    Hello,
    Message,
    Plan,
    Quiet,
    Release,
    Resume,
    Stop,
    Unfit,
    Void,
    die_with_parent,
)
from penstock.worker.execution import Runnable, bounded
from penstock.worker.fitness import Fitness
from penstock.worker.listener import Listener
from penstock.worker.logs import capture_job_logs, overhear_prints, set_up_logging
from penstock.worker.notes import Notes
from penstock.worker.pump import Pump, Wish
from penstock.worker.queues import groups
from penstock.worker.runners.contract import Runner, Surroundings
from penstock.worker.runners.thread import ThreadRunner
from penstock.worker.tally import Tally

log = logging.getLogger("penstock.worker")

CHECK_EVERY_S = 0.1
#: How long a job may keep the interpreter lock while the pump waits for it. An exchange gives the lock away several
#: times, so Python's own 5 ms would add up.
SWITCH_INTERVAL_S = 0.001
STATUS_FAULT = 2
STATUS_VOID = 3
STATUS_BROKEN = 4


def main(control: int, board: int, parent: int) -> None:
    """Work until told to stop; ends the process itself, because a job's thread may not let it end."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    faulthandler.enable()
    faulthandler.register(signal.SIGTTIN, all_threads=True)
    channel = Channel.inherited(control)
    received = channel.receive_plan()
    if received is None:
        os._exit(1)
    plan, early = received
    set_up_logging(plan.log_level, plan.log_format)
    shown = Board(board, sum(plan.places.values()))
    stacks.offer(shown)
    _end(Process(channel, shown, plan).run(early))


def _end(status: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Process:
    """Brings application, engine, runners and pump together and follows the supervisor."""

    def __init__(self, channel: Channel, board: Board, plan: Plan) -> None:
        self._channel, self._board, self._plan = channel, board, plan
        self._spawner = Spawner()
        self._pump: Pump | None = None
        self._tally: Tally | None = None
        self._fitness: Fitness | None = None
        self._runners: dict[str, Runner] = {}
        self._ended = threading.Event()
        self._releasing = self._quiet = False
        self._status = 0
        self._reason = ""

    def run(self, early: Sequence[Message] = ()) -> int:
        """Obey what came with the plan, then work; give the exit status."""
        for message in early:
            self._obey(message)
        if self._ended.is_set():
            return self._status
        self._board.set_state(BoardState.IMPORTING)
        try:
            app = load_app(self._plan.app)
            if self._plan.url is not None:
                app.redirect(self._plan.url)
            settings = app.settings
        except BaseException as error:  # noqa: BLE001 - the application's own code may raise anything while it is imported
            fault = "\n".join([import_fault(self._plan.app, error), *own_lines(error)])
            self._channel.send(Fault(bounded(fault, LONGEST_FAULT)))
            return STATUS_FAULT
        signal.signal(signal.SIGTERM, lambda *_: self._obey(Stop()))
        sources = _sources() if self._plan.reload else ()
        hello = Hello(
            url=settings.url,
            tasks=_runners_of(app.tasks),
            queues=_queues_of(app.tasks),
            sources=sources,
            outbox=settings.outbox,
            outbox_period=settings.outbox_period,
            alerts=app.alerts,
        )
        self._channel.send(hello)
        return self._follow(app, settings.url)

    def _follow(self, app: Penstock, url: str) -> int:
        """Do what the supervisor says until the pump has ended or the supervisor has gone."""
        selector = selectors.DefaultSelector()
        selector.register(self._channel, selectors.EVENT_READ)
        selector.register(self._spawner, selectors.EVENT_READ)
        while not self._ended.is_set():
            for key, _ in selector.select(1.0):
                if key.fileobj is self._spawner:
                    self._spawner.serve()
                    continue
                messages = self._channel.receive()
                if messages is None:
                    return 1
                for message in messages:
                    if not isinstance(message, Go):
                        self._obey(message)
                    elif not self._ended.is_set():
                        self._begin(app, url, message)
        return self._status

    def _obey(self, message: object) -> None:
        pump = self._pump
        if pump is None:
            if isinstance(message, Quiet | Resume):
                self._quiet = isinstance(message, Quiet)
            if isinstance(message, Stop | Release):
                self._channel.send(Drained("stopped before it began"))
                self._finish(0)
            return
        match message:
            case Quiet():
                pump.wish(Wish.QUIET)
            case Resume():
                pump.wish(Wish.WORK)
            case Stop():
                pump.wish(Wish.STOP)
            case Release():
                self._releasing = True
                pump.wish(Wish.STOP)

    def _begin(self, app: Penstock, url: str, go: Go) -> None:
        engine, process = open_engine(url), ProcessId(go.process)
        capture_job_logs()
        overhear_prints(self._board.say)
        notes = Notes(self._board)
        tasks = _runners_of(app.tasks)
        around = Surroundings(
            tasks=app.tasks,
            board=self._board,
            notes=notes,
            deliver=self._deliver,
            home=app,
            failures=app.failures,
            max_payload=app.max_payload,
        )
        self._runners = self._make_runners(around, set(tasks.values()))
        names = () if self._plan.queues is None else tuple(name for name, _ in self._plan.queues)
        listener = Listener(engine, process, names, self._news)
        self._tally = tally = Tally(engine, process, go.worker, judges=self._plan.quarantine)
        self._pump = Pump(
            engine,
            process,
            runners=self._runners,
            tasks=tasks,
            board=self._board,
            notes=notes,
            groups=lambda: groups(self._plan.queues),
            hints=listener,
            worker=go.worker,
            boot=SystemClock().boot(),
            unfit=self._unfit,
            breakers=_breakers_of(app, engine),
            tally=tally,
            max_jobs=self._plan.max_jobs,
        )
        self._fitness = Fitness(app.health_checks, self._plan.health_ms / 1000, self._tell_fitness, tally.unfit)
        if self._quiet or not self._fitness.is_fit:
            self._pump.wish(Wish.QUIET)
        self._fitness.begin()
        listener.begin()
        threading.Thread(target=self._watch, name="penstock-watch", daemon=True).start()
        threading.Thread(
            target=self._pump_to_the_end, args=(self._pump, engine), name="penstock-pump", daemon=True
        ).start()

    def _deliver(self, *delivered: Any) -> None:
        assert self._pump is not None
        self._pump.deliver(*delivered)

    def _news(self) -> None:
        assert self._pump is not None
        self._pump.news()

    def _make_runners(self, around: Surroundings, used: set[str]) -> dict[str, Runner]:
        """Make the runners that the tasks use. The process lane is always there: a job that crashed runs in it."""
        first, made = 0, dict[str, Runner]()
        for name, places in self._plan.places.items():
            if name in used or name == "process":
                made[name] = _make_runner(name, around, first, places, self._plan, self._spawner.spawn)
            first += places
        return made

    def _pump_to_the_end(self, pump: Pump, engine: Engine) -> None:
        try:
            pump.run()
        except LeaseLost as error:
            log.error("%s Its running jobs are stopped here; others have taken them over.", error)
            self._channel.send(Void())
            self._finish(STATUS_VOID)
        except EngineError as error:
            self._channel.send(Broken(str(error)))
            self._finish(STATUS_BROKEN)
        except Exception as error:  # the pump's thread ends here, and a process without a pump must not live
            log.exception("the pump has failed; this worker drains and ends with status 4")
            self._channel.send(Unfit(f"its pump failed: {error}"))
            self._finish(STATUS_BROKEN)
        else:
            self._channel.send(Drained(self._reason or "told to stop"))
            self._leave_record()
            engine.close()
            self._finish(0)

    def _leave_record(self) -> None:
        assert self._tally is not None
        try:
            self._tally.tell()
        except EngineError as error:
            log.debug("what this process did is not told to the others: %s", error)

    def _unfit(self, reason: str) -> None:
        assert self._fitness is not None
        log.error("a job found this worker unfit and goes back free of charge: %s", reason)
        self._fitness.call_unfit(reason)

    def _tell_fitness(self, reason: str | None) -> None:
        """Claim no more at once when unfit; when fit, the supervisor says whether the other processes are too."""
        assert self._pump is not None
        if reason is None:
            self._channel.send(Fit())
        else:
            self._pump.wish(Wish.QUIET)
            self._channel.send(Unfit(reason))

    def _watch(self) -> None:
        """Interrupt jobs at their soft limits, and all of them, as they come, once they are to be given back."""
        while not self._ended.wait(CHECK_EVERY_S):
            if self._fitness is not None:
                self._fitness.look()
            now_ns = time.monotonic_ns()
            for runner in self._runners.values():
                runner.check(now_ns)
                if self._releasing:
                    runner.interrupt()

    def _finish(self, status: int) -> None:
        self._status = status
        if self._fitness is not None:
            self._fitness.end()
        self._ended.set()
        self._spawner.wake()


class Spawner:
    """Starts programs from the main thread for any thread that asks."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[list[str], dict[str, Any], queue.SimpleQueue[Any]]] = queue.SimpleQueue()
        self._ours, self._theirs = socket.socketpair()

    def fileno(self) -> int:
        return self._ours.fileno()

    def spawn(self, argv: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        """Do `subprocess.Popen` in the main thread; what it raises there is raised here."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._asked.put((argv, options, answer))
        self.wake()
        started = answer.get()
        if isinstance(started, Exception):
            raise started
        assert isinstance(started, subprocess.Popen)
        return started

    def wake(self) -> None:
        self._theirs.send(b".")

    def serve(self) -> None:
        self._ours.recv(4096)
        while not self._asked.empty():
            argv, options, answer = self._asked.get()
            try:
                answer.put(subprocess.Popen(argv, **options))
            except Exception as error:  # noqa: BLE001 - it belongs to the thread that asked
                answer.put(error)


def _make_runner(
    name: str, around: Surroundings, first: int, places: int, plan: Plan, spawn: Callable[..., Any]
) -> Runner:
    """Make one runner; those that few applications use are imported when they are."""
    if name == "thread":
        return ThreadRunner(around, first, places)
    if name == "loop":
        from penstock.worker.runners.loop import LoopRunner

        return LoopRunner(around, first, places)
    if name == "command":
        from penstock.worker.runners.command import CommandRunner

        return CommandRunner(around, first, places, spawn=spawn)
    from penstock.worker.runners.child import ChildRunner

    return ChildRunner(around, first, places, plan=plan, spawn=spawn)


def _runners_of(tasks: Mapping[str, Runnable]) -> dict[str, str]:
    return {name: task.runner for name, task in tasks.items()}


def _breakers_of(app: Penstock, engine: Engine) -> Breakers | None:
    """Watch over dependencies, where the application knows of any."""
    needs = {name: task.depends_on for name, task in app.tasks.items() if task.depends_on}
    if not (needs or app.breaker_terms or app.failures.may_name_dependencies()):
        return None
    return Breakers(engine, needs, app.breaker_terms)


def _queues_of(tasks: Mapping[str, Task[..., Any]]) -> dict[str, str]:
    return {name: task.queue for name, task in tasks.items()}


def _sources() -> tuple[str, ...]:
    """Give the files of the modules that lie below the working directory."""
    here = str(Path.cwd())
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return tuple(sorted({file for file in files if file and file.startswith(here) and "site-packages" not in file}))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:4]))
