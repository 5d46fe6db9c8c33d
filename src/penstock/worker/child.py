"""A child of the process lane: imports the application, then runs one job at a time for the process that started it.

Plain functions run in the main thread, where signal handlers may be set; coroutines on a loop of their own thread.
"""

import contextlib
import faulthandler
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from penstock.loading import import_fault, load_app
from penstock.model.job import Claim, Fence, Progress
from penstock.model.outcome import Outcome
from penstock.worker import stacks
from penstock.worker.board import Board
from penstock.worker.channel import (
    LONGEST_FAULT,
    AskToStop,
    Channel,
    Ended,
    Fault,
    Hello,
    Interrupted,
    Message,
    Noted,
    Run,
    die_with_parent,
)
from penstock.worker.execution import bounded
from penstock.worker.forensics import keep_orphans
from penstock.worker.logs import capture_job_logs, overhear_prints, set_up_logging
from penstock.worker.notes import LONGEST_LOG
from penstock.worker.premises import Premises
from penstock.worker.runners.contract import Runner, Surroundings
from penstock.worker.runners.thread import ThreadRunner

CHECK_EVERY_S = 0.1

log = logging.getLogger("penstock.worker")


#: How many jobs it could run at once: one in the main thread, one on the loop.
PLACES = 2


def main(descriptor: int, board: int, parent: int) -> int:
    """Run jobs until the channel closes; the board tells whoever started this whether a job had begun."""
    die_with_parent(parent)
    faulthandler.register(signal.SIGTTIN, all_threads=True)
    shown = Board(board, PLACES)
    stacks.offer(shown)
    _offer_to_the_oom_killer()
    keep_orphans()
    channel = Channel.inherited(descriptor)
    os.set_inheritable(board, False)
    received = channel.receive_plan()
    if received is None:
        return 0
    plan, early = received
    set_up_logging(plan.log_level, plan.log_format)
    try:
        app = load_app(plan.app)
        if plan.url is not None:
            app.redirect(plan.url)
    except BaseException as error:  # noqa: BLE001 - the application's own code may raise anything while it is imported
        channel.send(Fault(bounded(import_fault(plan.app, error), LONGEST_FAULT)))
        return 2
    capture_job_logs()
    overhear_prints(shown.say)
    premises = Premises()
    delivery = _Delivery(channel, premises)
    around = Surroundings(
        tasks=app.tasks,
        board=shown,
        notes=_Voice(channel, shown),
        deliver=delivery.take,
        home=app,
        failures=app.failures.alone(),
    )
    plain = ThreadRunner(around, 0, 1)
    slot = plain.take_this_thread()
    channel.send(Hello(url="", tasks={}))
    threading.Thread(
        target=_Line(channel, plain, around, delivery).take_all, args=(early,), name="penstock-line", daemon=True
    ).start()
    slot.serve()
    return 0


class _Voice:
    """Passes on what the job says, and keeps the last of it where it outlives this child."""

    def __init__(self, channel: Channel, board: Board) -> None:
        self._channel, self._board = channel, board

    def put(self, claim: Claim, progress: Progress | None, log: str) -> None:
        if log:
            self._board.say(claim.fence.token, log)
        self._channel.send(Noted(progress, log[-LONGEST_LOG:]))


class _Delivery:
    """Tells how jobs ended, each after what it has changed here was looked at.

    Attributes:
        last: the fence of the job that was told of last.
    """

    def __init__(self, channel: Channel, premises: Premises) -> None:
        self._channel, self.premises = channel, premises
        self.last: Fence | None = None

    def take(self, _runner: Runner, claim: Claim, outcome: Outcome) -> None:
        self._channel.send(Ended(outcome, self.premises.tidy()))
        self.last = claim.fence


class _Line:
    """Hands over jobs, and what concerns them, until the other end has gone.

    An order to stop may overtake its job on the way to the slot, so it stands until the next job comes.
    """

    def __init__(self, channel: Channel, plain: ThreadRunner, around: Surroundings, delivery: _Delivery) -> None:
        self._channel, self._plain, self._around, self._delivery = channel, plain, around, delivery
        self._runner: Runner = plain
        self._loop: Runner | None = None
        self._stops: list[AskToStop | Interrupted] = []
        self._claim: Claim | None = None

    def take_all(self, early: Sequence[Message]) -> None:
        try:
            self._hear(early)
        except OSError as error:
            log.error(
                "child process %d can hear its worker no more (%s): job %s has likely closed descriptors that were not "
                "its own, and is charged a crash",
                os.getpid(),
                error,
                "of nobody" if self._claim is None else self._claim.id,
            )
        self._plain.close()

    def _hear(self, early: Sequence[Message]) -> None:
        for message in early:
            self._take(message)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while True:
            self._around.board.beat(time.monotonic_ns())
            messages = self._channel.receive() if poll.poll(CHECK_EVERY_S * 1000) else []
            if messages is None:
                return
            if not any(isinstance(message, Run) for message in messages):
                self._end_with_threads()
            for message in messages:
                self._take(message)
            self._runner.check(time.monotonic_ns())
            self._apply_stops()

    def _end_with_threads(self) -> None:
        """End this child when the last job was told of and has left threads that go on; its worker starts another."""
        if self._claim is None or self._delivery.last != self._claim.fence:
            return
        if not (names := self._delivery.premises.lingers()):
            return
        log.warning(
            "child process %d ends, because job %s has left threads running: %s", os.getpid(), self._claim.id, names
        )
        os._exit(0)

    def _take(self, message: object) -> None:
        if isinstance(message, Run):
            self._stops, self._claim = [], message.claim
            in_loop = self._around.tasks[message.claim.task].runner == "loop"
            self._runner = self._loop_runner() if in_loop else self._plain
            self._runner.start([message.claim])
        elif isinstance(message, AskToStop | Interrupted) and self._claim and message.fence == self._claim.fence:
            self._stops.append(message)

    def _apply_stops(self) -> None:
        for stop in self._stops:
            if isinstance(stop, AskToStop):
                self._runner.cancel(stop.fence)
            else:
                self._runner.interrupt()

    def _loop_runner(self) -> Runner:
        from penstock.worker.runners.loop import LoopRunner

        self._loop = self._loop or LoopRunner(self._around, 1, 1)
        return self._loop


def _offer_to_the_oom_killer() -> None:
    """Let the kernel take this child before its process when memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in sys.argv[1:4])))
