"""The one thread of a process that talks to the store: collects outcomes, settles them, exchanges, hands out claims."""

import enum
import logging
import queue
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from penstock.engine import MOST_AT_ONCE, Answer, Engine, Want
from penstock.model.errors import EngineUnavailable, LeaseLost
from penstock.model.job import NO_DETAILS, Avoid, Change, Claim, ProcessId
from penstock.model.outcome import Outcome
from penstock.model.settle import settle
from penstock.worker.board import Board, BoardState
from penstock.worker.breakers import Breakers
from penstock.worker.execution import RETURNED, cancelled_unstarted, found_unfit, passed_on, unreadable
from penstock.worker.journal import Journal
from penstock.worker.lane import Lane
from penstock.worker.notes import Notes
from penstock.worker.patience import Patience
from penstock.worker.runners.contract import Runner
from penstock.worker.tally import Tally

log = logging.getLogger("penstock.worker")

#: Longest pause of the pump; the board shows a beat at least this often.
LONGEST_PAUSE_S = 1.0
#: How long outcomes may gather while claims still wait for their places.
LINGER_S = 0.01
#: How often progress and log text are stored while jobs run.
NOTES_EVERY_S = 0.2
#: The store is asked at least this often, whatever the hints say.
POLL_S = 5.0
#: The same while every place is taken, because cancellations come this way, or while a lane rests.
FULL_POLL_S = 1.0

#: How long a job passes by a worker that was unfit for it, and any other worker on that machine.
PASSES_WORKER_MS, PASSES_BOOT_MS = 600_000, 60_000

Settled = tuple[Claim, Outcome, Change]


class Wish(enum.IntEnum):
    """What the pump was told to do; it only ever gets stronger, but for `QUIET`."""

    WORK = 0
    QUIET = 1
    STOP = 2


class Hints(Protocol):
    """Waits for news of the store beside the pump."""

    def arm(self, mark: int) -> None:
        """Wait for what comes after `mark`, and call `Pump.news` once."""
        ...


class Pump:
    """Moves jobs between the store and the runners of one process.

    Nothing here runs user code. Outcomes come in through `deliver`, from any thread; wishes through `wish`.

    Args:
        groups: gives the queues to claim from, in order; asked before each exchange.
        worker, boot: which worker this process belongs to, and on which run of the machine.
        unfit: told when a job calls this worker unfit.
        breakers: which tasks wait for a dependency; None where none is known.
        tally: counts what is delivered.
        max_jobs: how many jobs to claim before the pump drains by itself.
    """

    def __init__(
        self,
        engine: Engine,
        process: ProcessId,
        *,
        runners: Mapping[str, Runner],
        tasks: Mapping[str, str],
        board: Board,
        notes: Notes,
        groups: Callable[[], tuple[tuple[str, ...], ...] | None] = lambda: None,
        hints: Hints | None = None,
        worker: str = "",
        boot: str = "",
        unfit: Callable[[str], None] = log.error,
        breakers: Breakers | None = None,
        tally: Tally | None = None,
        max_jobs: int | None = None,
    ) -> None:
        self._engine, self._process, self._tasks = engine, process, dict(tasks)
        self._lanes = {
            name: Lane(name, runner, looks_ahead=name in ("thread", "loop")) for name, runner in runners.items()
        }
        self._places = sum(lane.runner.places for lane in self._lanes.values())
        self._lane_of = {id(lane.runner): lane for lane in self._lanes.values()}
        self._board, self._notes, self._groups, self._hints = board, notes, groups, hints
        self._unfit, self._left, self._breakers, self._tally = unfit, max_jobs, breakers, tally
        self._began_ns = self._busy_ns = self._waited_ns = 0
        self._worker, self._boot = worker, boot
        self._told_ms = self._told_ns = 0
        self._journal = Journal()
        self._pokes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._poked = self._urgent = False
        self._ended: deque[tuple[Runner, Claim, Outcome]] = deque()
        self._enough = 1
        self._settled: list[Settled] = []
        self._wish = Wish.WORK
        self._beat = 0
        self._news = self._hungry = True
        self._flows = False
        self._asked_ns = self._noted_ns = 0
        self.drain_asked = False

    # -- from any thread ---------------------------------------------------------------------------------------------

    def deliver(self, runner: Runner, claim: Claim, outcome: Outcome) -> None:
        """Take the outcome of a claim. While others wait for their places, outcomes gather into one exchange."""
        ended = self._ended
        ended.append((runner, claim, outcome))
        if not self._poked and (len(ended) >= self._enough or not runner.waits()):
            self.poke()

    def poke(self) -> None:
        """Let the pump look around."""
        self._poked = True
        self._pokes.put(None)

    def news(self) -> None:
        """Say that the store may have something for this process; heard now if it could be taken now."""
        self._news = True
        if self._listens():
            self.poke()

    def wish(self, wish: Wish) -> None:
        """Work, claim no more, or end once nothing is held."""
        if self._wish is not Wish.STOP:
            self._wish = wish
        self._urgent = True
        self.poke()

    @property
    def held(self) -> int:
        """How many claims have no outcome that the store knows."""
        return sum(lane.held for lane in self._lanes.values()) + len(self._settled)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Pump until told to stop and nothing is held.

        Raises:
            LeaseLost: everything held here is void.
        """
        self._board.set_state(BoardState.WORKING)
        while not self._done():
            self._pause()
            self._began_ns = time.monotonic_ns()
            self._show()
            self._collect()
            self._return_stalled()
            self._store_notes()
            if self._has_reason():
                self._exchange()
            self._busy_ns += time.monotonic_ns() - self._began_ns
            if not self.held:
                self._busy_ns = self._waited_ns = 0
        self._board.set_state(BoardState.ENDED)

    def _done(self) -> bool:
        ends = self._wish is Wish.STOP or self._left == 0
        return ends and self.held == 0 and not self._ended

    def _pause(self) -> None:
        """Wait for something to do. Few outcomes are no reason while other claims still wait for their places."""
        until = time.monotonic() + self._pause_s()
        while not self._poke_came(until - time.monotonic()) or self._is_early():
            if time.monotonic() >= until:
                break
        self._urgent = False

    def _poke_came(self, timeout_s: float) -> bool:
        if not self._poked:
            try:
                self._pokes.get(timeout=max(0.0, timeout_s))
            except queue.Empty:
                return False
        self._poked = False
        while not self._pokes.empty():
            self._pokes.get_nowait()
        return True

    def _is_early(self) -> bool:
        return not self._urgent and 0 < len(self._ended) < self._enough and self._waits()

    def _pause_s(self) -> float:
        if self._has_reason():
            return 0.0
        if self._ended or self._waits():
            return LINGER_S
        return NOTES_EVERY_S if self._notes else LONGEST_PAUSE_S

    def _show(self) -> None:
        self._board.beat(time.monotonic_ns())
        self._board.set_held(self.held)
        if self._wish is not Wish.STOP:
            self._board.set_state(BoardState.QUIET if self._wish is Wish.QUIET else BoardState.WORKING)

    def _collect(self) -> None:
        """Settle what has ended."""
        count = min(len(self._ended), MOST_AT_ONCE - len(self._settled))
        ended = [self._ended.popleft() for _ in range(count)]
        if self._breakers is not None:
            now_ms, judge = self._now_ms(), self._breakers.judge
            ended = [(runner, claim, judge(claim, outcome, now_ms)) for runner, claim, outcome in ended]
        self._settled += [
            (claim, outcome, settle(claim, outcome, random.random()))
            for _, claim, outcome in ended
            if outcome.result is not None or not self._was_unfit(claim, outcome)
        ]
        now_ns = time.monotonic_ns()
        for lane, several in Counter(id(runner) for runner, _, _ in ended).items():
            self._lane_of[lane].ended(several, now_ns)

    def _was_unfit(self, claim: Claim, outcome: Outcome) -> bool:
        """Say whether a job found this worker unfit; it passes this worker by from now on."""
        reason = found_unfit(outcome)
        if reason is None:
            return False
        self._unfit(reason)
        now_ms = self._now_ms()
        avoid = Avoid(self._worker, self._boot, now_ms + PASSES_WORKER_MS, now_ms + PASSES_BOOT_MS)
        self._settle_all([claim], replace(outcome, avoid=avoid))
        return True

    def _now_ms(self) -> int:
        """Give the store's time, as of its last answer."""
        return self._told_ms + (time.monotonic_ns() - self._told_ns) // 1_000_000

    def _return_stalled(self) -> None:
        now_ns = time.monotonic_ns()
        for lane in self._lanes.values():
            returned = lane.withdraw_stalled(now_ns) if self._wish is Wish.WORK else lane.withdraw()
            self._settle_all(returned, RETURNED)
            if self._breakers is not None:
                for claim in returned:
                    self._breakers.gave_back(claim, self._now_ms())
            if self._left is not None:
                self._left += len(returned)

    def _settle_all(self, claims: Sequence[Claim], outcome: Outcome) -> None:
        for claim in claims:
            self._settled.append((claim, outcome, settle(claim, outcome, 0.0)))

    def _store_notes(self) -> None:
        """Store what jobs said: at most five times a second, but always before the outcome of the job that said it."""
        now_ns = time.monotonic_ns()
        if not self._notes or (not self._settled and now_ns - self._noted_ns < NOTES_EVERY_S * 1e9):
            return
        self._noted_ns = now_ns
        notes = self._notes.take()
        for start in range(0, len(notes), MOST_AT_ONCE):
            try:
                self._engine.note(notes[start : start + MOST_AT_ONCE])
            except EngineUnavailable as error:
                log.warning(
                    "progress and log text of %d running jobs are not stored, the jobs go on: %s",
                    len(notes) - start,
                    error,
                )
                return

    def _has_reason(self) -> bool:
        """Exchange when there is something to say, news to hear, or nothing was heard for long."""
        if self._settled or (self._news and self._listens()):
            return True
        stalled = any(lane.has_stalled for lane in self._lanes.values())
        waits = self._breakers is not None and self._breakers.is_any_open
        poll_s = POLL_S if self._hungry and not stalled and not waits else FULL_POLL_S
        return time.monotonic_ns() - self._asked_ns > poll_s * 1e9

    def _listens(self) -> bool:
        """Say whether more could be taken now; news is no reason to break up a batch that is under way."""
        return self._hungry and not self._waits()

    def _waits(self) -> bool:
        return any(lane.runner.waits() for lane in self._lanes.values())

    def _exchange(self) -> None:
        self._news = False
        settled = self._portion()
        want = self._want()
        answer = self._insist([change for _, _, change in settled], want)
        if settled and self._tally is not None:
            now_ns = time.monotonic_ns()
            self._tally.count(settled, self._busy_ns + now_ns - self._began_ns - self._waited_ns)
            self._busy_ns, self._began_ns, self._waited_ns = 0, now_ns, 0
        self._hungry, self._flows = want is not None, bool(answer.claims)
        self._told_ms, self._told_ns = answer.now_ms, time.monotonic_ns()
        self._journal.write(settled, answer)
        self._start(answer.claims)
        for fence in answer.cancels:
            for lane in self._lanes.values():
                lane.runner.cancel(fence)
        if answer.drain and not self.drain_asked:
            self.drain_asked = True
            self.wish(Wish.STOP)
        self._enough = max(1, sum(lane.held for lane in self._lanes.values()) // 2)
        if self._hints is not None:
            self._hints.arm(answer.mark)
        self._show()

    def _portion(self) -> list[Settled]:
        """Take what is delivered now: while jobs flow, no more than half of what is held.

        The other half runs, or is on its way to the next exchange, while this one lasts. Were all of it delivered at
        once, no place would have anything to run until the store has answered, and the store nothing to do after.
        """
        most = MOST_AT_ONCE
        if self._flows and self._wish is Wish.WORK:
            most = min(most, max(self._places, (self.held + 1) // 2))
        portion, self._settled = self._settled[:most], self._settled[most:]
        return portion

    def _insist(self, changes: Sequence[Change], want: Want | None) -> Answer:
        """Exchange until the store answers; a call whose outcome is unknown is repeated as it was, beat and all."""
        self._beat += 1
        patience = Patience(f"process {self._process[:8]}")
        while True:
            tried_ns = time.monotonic_ns()
            try:
                answer = self._engine.exchange(self._process, self._beat, changes, want)
            except EngineUnavailable as error:
                patience.failed(error)
                self._board.beat(time.monotonic_ns())
                time.sleep(patience.pause_s())
                self._waited_ns += time.monotonic_ns() - tried_ns
            except LeaseLost:
                self._journal.void(changes)
                raise
            else:
                patience.answered()
                self._asked_ns = round(time.monotonic_ns() - random.random() * POLL_S * 0.2e9)
                return answer

    def _want(self) -> Want | None:
        """Say what can be taken; what is held and undelivered never exceeds what one exchange can carry."""
        if self._wish is not Wish.WORK or self._left == 0:
            return None
        now_ns = time.monotonic_ns()
        free = {name: room for name, lane in self._lanes.items() if (room := lane.room(now_ns))}
        limit = MOST_AT_ONCE - self.held
        if self._left is not None:
            limit = min(limit, self._left)
        if not free or limit <= 0:
            return None
        want = Want(tasks=self._tasks, free=free, queues=self._groups(), limit=limit)
        return want if self._breakers is None else self._passable(want, self._breakers)

    def _passable(self, want: Want, breakers: Breakers) -> Want | None:
        """Leave out the tasks that wait for a dependency, or ask for one job that may try it."""
        breakers.look()
        if trial := breakers.on_trial(self._tasks, self._now_ms()):
            self._news = True  # the others are asked for right after
            return replace(want, tasks=trial, limit=1)
        tasks = breakers.passable(self._tasks)
        return replace(want, tasks=tasks) if tasks else None

    def _start(self, claims: Sequence[Claim]) -> None:
        if not claims:
            return
        now_ns = time.monotonic_ns()
        by_lane: dict[str, list[Claim]] = {}
        for claim in claims:
            if (outcome := self._refused(claim)) is not None:
                self._settle_all([claim], outcome)
                continue
            by_lane.setdefault(self._lane_for(claim), []).append(claim)
        for name, several in by_lane.items():
            self._lanes[name].start(several, now_ns)
        if self._left is not None:
            self._left -= len(claims)

    def _refused(self, claim: Claim) -> Outcome | None:
        """Give the outcome of a claim that is not started here, None for one that is."""
        if claim.cancel_requested:
            return cancelled_unstarted(claim)
        if not claim.is_readable:
            return unreadable(claim)
        if claim.details is not NO_DETAILS and claim.details.avoid:
            now_ms = self._now_ms()
            if any(avoid.shuns(self._worker, self._boot, now_ms) for avoid in claim.details.avoid):
                return passed_on(random.random())
        if self._breakers is not None and not self._breakers.lets_through(claim, self._now_ms()):
            return RETURNED
        return None

    def _lane_for(self, claim: Claim) -> str:
        """Send a job that took a process down to a child of its own; a command is one already."""
        runner = self._tasks[claim.task]
        return "process" if claim.counters.runs_alone and runner != "command" else runner
