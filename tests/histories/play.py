"""A play of producers, workers and an operator on one store: drawn from a seed, in one thread, on a turned clock.

The same seed gives the same play again. Whoever is killed vanishes in the midst of a call, replies get lost, workers
sleep past their leases and go on as if nothing had happened, and late packets are delivered again.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from penstock.engine import (
    AddRequest,
    Alteration,
    Bury,
    Cancel,
    Death,
    Delete,
    Edit,
    Engine,
    Kick,
    Note,
    Reschedule,
    Taken,
    Upgrade,
    Want,
    WorkerInfo,
)
from penstock.model import settle as settling
from penstock.model.codec import encode_envelope
from penstock.model.errors import EngineDown, LeaseLost
from penstock.model.job import Change, Claim, Details, ErrorInfo, Fence, JobId, NewJob, ProcessId, Progress, Unique
from penstock.model.outcome import Ending, Outcome
from penstock.model.retry import Fixed, Policy, Stage
from penstock.model.states import State
from penstock.testing import TurnedClock
from tests.histories import reading
from tests.histories.history import Final
from tests.histories.watching import Log, effect, watch

LEASE_MS = 5000
RUNNERS = {"a": "thread", "b": "thread", "c": "process"}
QUEUES = ("north", "south", "north", "south", "narrow")
NARROW, BOUND = "narrow", 4
WORKERS, PROCESSES = 3, 2
#: How likely a request is lost before it reaches the store, and its reply after.
LOST = 0.02

#: How likely the caller dies before he reads the reply.
KILLED = 0.004

#: What may be done next, and how often.
SHARES = {
    "enqueue": 16,
    "beat": 30,
    "run": 24,
    "haunt": 3,
    "redeliver": 2,
    "alter": 8,
    "tend": 6,
    "settle": 8,
    "pass_time": 12,
    "kill_process": 0.6,
    "kill_worker": 0.25,
    "freeze": 0.5,
    "evict": 0.15,
    "set_clock": 0.1,
    "reboot": 0.05,
}

POLICIES = (
    Policy(max_attempts=1, max_crashes=2),
    Policy(max_attempts=3, max_crashes=3, backoff=Fixed(0.2)),
    Policy(max_attempts=1, max_crashes=0),
    Policy(
        max_attempts=2,
        max_crashes=1,
        backoff=Fixed(0.0),
        fallbacks=(Stage("b", "north", Policy(max_attempts=2, max_crashes=2, backoff=Fixed(0.1))),),
    ),
)


class Killed(BaseException):
    """The caller died in the midst of a call."""


class Process:
    """One process of a worker: what it holds, what it is about to deliver, and what its jobs are doing."""

    def __init__(self, id: ProcessId) -> None:
        self.id, self.beat = id, 0
        self.pending: tuple[list[Change], Want | None] | None = None
        self.held: dict[JobId, Claim] = {}
        self.running: dict[JobId, Iterator[None]] = {}
        self.asked_to_stop: set[Fence] = set()

    def drop(self, id: JobId) -> None:
        self.held.pop(id, None)
        self.running.pop(id, None)


class Worker:
    """A supervisor with its processes."""

    def __init__(self, id: str, tender: ProcessId) -> None:
        self.id, self.tender, self.beat = id, tender, 0
        self.processes: list[Process] = []
        self.deaths: list[Death] = []
        self.renew_at = 0
        self.sleeps_until = 0
        self.taken: list[Taken] = []


class Play:
    """See `run`.

    Attributes:
        calls: how many calls were made.
        faults: how many of each kind there were.
    """

    def __init__(self, engine: Engine, clock: TurnedClock, folder: Path, seed: str) -> None:
        self._engine, self._clock, self._dice = engine, clock, random.Random(seed)
        self._folder, self._log = folder, Log(folder, self._now_ns)
        self._before_boot_ms = self._last_ns = self._numbers = 0
        self.faults = dict.fromkeys(("lost calls", "kills", "freezes", "jumps"), 0)
        self._workers: list[Worker] = []
        self._to_retry: list[AddRequest] = []
        self._accepted: list[JobId] = []
        self._delivered: list[Change] = []
        self._jumps: list[int] = []
        self._ghosts: list[Process] = []
        self._is_over = False
        self._acting: tuple[Worker, Process]
        for verb in ("add", "exchange", "renew", "tend", "alter", "begin", "record", "note"):
            setattr(engine, verb, self._unsure(getattr(engine, verb)))
        watch(engine, self._log)

    def run(self, steps: int) -> Final:
        """Play so many steps, bring everything to an end without faults, and give what is left."""
        self._engine.alter_queue(NARROW, max_jobs=BOUND)
        for _ in range(steps):
            self._staff()
            act = self._dice.choices(list(SHARES), list(SHARES.values()))[0]
            try:
                getattr(self, f"_{act}")()
            except (EngineDown, LeaseLost):
                continue  # who made the call has noted what it means to him
            except Killed:
                self._bury(act)
        self._end()
        final = reading.see(self._engine)
        reading.keep(self._folder, final, self._jumps)
        return final

    # -- faults -------------------------------------------------------------------------------------------------------

    def _unsure(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Lose some of the calls of a verb, before or after they took effect."""

        def call(*given: Any) -> Any:
            luck = 0.5 if self._is_over else self._dice.random()
            self.faults["lost calls"] += abs(luck - 0.5) > 0.5 - LOST
            if luck < LOST:
                raise EngineDown("The request was lost; the play goes on.")
            answer = original(*given)
            if luck > 1 - LOST:
                raise EngineDown("The reply was lost; the play goes on.")
            if luck > 1 - LOST - KILLED:
                raise Killed
            return answer

        return call

    def _now_ns(self) -> int:
        """Give a time that goes on over a restart of the machine, and in which each call has its place."""
        self._last_ns = max(self._last_ns + 1, (self._before_boot_ms + self._clock.steady_ms()) * 1_000_000)
        return self._last_ns

    def _note_jump(self) -> None:
        self.faults["jumps"] += 1
        self._jumps.append(self._now_ns())

    def _set_clock(self) -> None:
        self._clock.jump_wall(self._dice.choice([-3000, 5000, 60_000]))
        self._note_jump()

    def _reboot(self) -> None:
        """Restart the machine: all who worked there are gone, and every lease is void at once."""
        self._before_boot_ms += self._clock.steady_ms()
        self._clock.reboot()
        self._note_jump()
        self._workers.clear()

    def _kill_process(self) -> None:
        worker, process = self._anyone()
        if process in worker.processes:
            self._lose(worker, process)
            self.faults["kills"] += 1

    def _kill_worker(self) -> None:
        self._workers.remove(self._anyone()[0])
        self.faults["kills"] += 1

    def _bury(self, act: str) -> None:
        """See off who died in the midst of a call: a producer or operator, a process, or a whole worker."""
        self.faults["kills"] += 1
        worker, process = self._acting
        if act in ("beat", "run", "redeliver") and process in worker.processes:
            self._lose(worker, process)
        elif act in ("tend", "settle", "pass_time"):
            self._workers.remove(worker)

    def _lose(self, worker: Worker, process: Process) -> None:
        worker.processes.remove(process)
        started = frozenset(process.held[id].fence.token for id in process.running)
        worker.deaths.append(Death(process.id, started))

    def _freeze(self) -> None:
        self._anyone()[0].sleeps_until = self._steady_ms() + self._dice.randint(LEASE_MS // 2, LEASE_MS * 2)
        self.faults["freezes"] += 1

    def _steady_ms(self) -> int:
        return self._before_boot_ms + self._clock.steady_ms()

    def _pass_time(self) -> None:
        self._clock.turn(self._dice.choice([1, 10, 100, 400, 700]))
        for worker in self._awake():
            if worker.renew_at <= self._steady_ms():
                self._acting = worker, Process(worker.tender)
                self._renew(worker)

    # -- workers ------------------------------------------------------------------------------------------------------

    def _staff(self) -> None:
        """Make good what was killed."""
        while len(self._workers) < WORKERS:
            worker = Worker(self._name("w"), self._name("t"))
            self._workers.append(worker)
        for worker in self._awake():
            while len(worker.processes) < PROCESSES:
                process = Process(self._name("p"))
                self._enrol(worker, process.id)
                worker.processes.append(process)

    def _enrol(self, worker: Worker, *processes: ProcessId) -> None:
        """Get leases; a supervisor whose own is void takes another name."""
        info = WorkerInfo(id=worker.id, lease_ms=LEASE_MS)
        try:
            self._engine.enrol(info, [worker.tender, *processes])
        except LeaseLost:
            worker.tender, worker.beat, worker.taken = self._name("t"), 0, []
            self._engine.enrol(info, [worker.tender, *processes])

    def _begin_anew(self, worker: Worker) -> None:
        """Report itself dead, where a reply is lost that says what was taken over; others find it then."""
        worker.deaths.append(Death(worker.tender))
        worker.tender, worker.beat, worker.taken = self._name("t"), 0, []
        self._enrol(worker)

    def _name(self, kind: str) -> ProcessId:
        self._numbers += 1
        return ProcessId(f"{kind}{self._numbers}")

    def _awake(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.sleeps_until <= self._steady_ms()]

    def _anyone(self) -> tuple[Worker, Process]:
        """Give a worker that is awake, or who sleeps if all do, and one of its processes."""
        worker = self._dice.choice(self._awake() or self._workers)
        self._acting = worker, self._dice.choice(worker.processes or [Process(self._name("nobody"))])
        return self._acting

    def _beat(self) -> None:
        worker, process = self._anyone()
        if worker.sleeps_until > self._steady_ms() or process not in worker.processes:
            return
        self._exchange(worker, process)

    def _exchange(self, worker: Worker, process: Process) -> None:
        """Deliver what has ended and ask for more; where the reply was lost, the same beat again."""
        if process.pending is None:
            process.beat += 1
            process.pending = (self._ended(process), self._want(process))
        changes, want = process.pending
        try:
            answer = self._engine.exchange(process.id, process.beat, changes, want)
        except LeaseLost:
            worker.processes.remove(process)
            self._ghosts = [*self._ghosts, process][-5:]
            raise
        process.pending = None
        self._delivered = [*self._delivered, *changes][-40:]
        process.asked_to_stop.update(answer.cancels)
        for claim in answer.claims:
            process.held[claim.id] = claim
            if self._dice.random() < 0.8:
                process.running[claim.id] = self._errand(claim)

    def _want(self, process: Process) -> Want | None:
        free = max(0, 6 - len(process.held))
        return Want(tasks=RUNNERS, free={"thread": free, "process": 2}, limit=free) if free else None

    def _ended(self, process: Process) -> list[Change]:
        """Settle some of what a process holds."""
        ended = [claim for claim in process.held.values() if self._dice.random() < (1 if self._is_over else 0.4)]
        changes = [settling.settle(claim, self._outcome(process, claim), self._dice.random()) for claim in ended]
        for claim in ended:
            process.drop(claim.id)
        return changes

    def _outcome(self, process: Process, claim: Claim) -> Outcome:
        started = claim.id in process.running
        asked = claim.cancel_requested or claim.fence in process.asked_to_stop
        if not started:
            ending = Ending.CANCELLED if asked else Ending.RELEASED
            return Outcome(ending=ending, started=False, cancel_requested=asked)
        luck = 0.0 if self._is_over else self._dice.random()
        if luck < 0.6:
            return Outcome(ending=Ending.SUCCEEDED, result=_result(claim), cancel_requested=asked)
        ending = self._dice.choice([Ending.FAILED, Ending.FAILED, Ending.TIMED_OUT, Ending.SNOOZED, Ending.RELEASED])
        error = ErrorInfo(kind=ending.value, message=f"at {claim.fence}", attempt=claim.attempt)
        told = error if ending in (Ending.FAILED, Ending.TIMED_OUT) else None
        return Outcome(ending=ending, error=told, after_ms=50, cancel_requested=asked)

    def _redeliver(self) -> None:
        """Deliver late, or in the name of another past, what this process has no right to."""
        worker, process = self._anyone()
        if process not in worker.processes or process.pending is not None or not self._delivered:
            return
        late = [self._dice.choice(self._delivered)]
        late += [_forged(claim) for claim in list(process.held.values())[:1] if late[0].id != claim.id]
        process.beat += 1
        process.pending = (late, None)
        self._exchange(worker, process)

    def _tend(self) -> None:
        worker = self._anyone()[0]
        if worker.sleeps_until <= self._steady_ms():
            self._take_over(worker)

    def _take_over(self, worker: Worker) -> None:
        """Take over what lapsed leases held; who did not hear what it took begins anew."""
        try:
            worker.taken += self._engine.tend(worker.tender).taken
        except EngineDown:
            self._begin_anew(worker)

    def _settle(self) -> None:
        worker = self._anyone()[0]
        if worker.sleeps_until <= self._steady_ms():
            self._settle_taken(worker)

    def _renew(self, worker: Worker) -> None:
        """Renew leases and report the dead; who lost its own lease, or a reply, begins anew."""
        deaths, leases = list(worker.deaths), [process.id for process in worker.processes]
        try:
            renewed = self._engine.renew(worker.tender, leases, deaths)
        except (LeaseLost, EngineDown):
            self._begin_anew(worker)
            return
        worker.renew_at = self._steady_ms() + LEASE_MS // 3
        del worker.deaths[: len(deaths)]
        worker.processes = [process for process in worker.processes if process.id not in renewed.void]
        worker.taken += renewed.taken

    def _settle_taken(self, worker: Worker) -> None:
        """Settle what was taken over; who cannot tell the store begins anew, and others find it."""
        taken, worker.taken = worker.taken, []
        if not taken:
            return
        changes = [settling.settle(one.claim, _fate(one), self._dice.random()) for one in taken]
        worker.beat += 1
        try:
            self._engine.exchange(worker.tender, worker.beat, changes, None)
        except (EngineDown, LeaseLost):
            self._begin_anew(worker)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Let a running job do the next thing; it ends itself when it hears that it was handed on."""
        worker, process = self._anyone()
        if worker.sleeps_until > self._steady_ms() or not process.running:
            return
        self._go_on(process)

    def _haunt(self) -> None:
        """Let a job of a process whose lease is void go on, which nobody has told it yet."""
        haunting = [process for process in self._ghosts if process.running]
        if haunting:
            self._go_on(self._dice.choice(haunting))

    def _go_on(self, process: Process) -> None:
        next(process.running[self._dice.choice(list(process.running))], None)

    def _errand(self, claim: Claim) -> Iterator[None]:
        """What the code of a job does, from one call of the store to the next."""
        for what in self._dice.sample(["step", "once", "note", "child"], 2):
            match what:
                case "step":
                    yield from self._do(claim, f"step:{claim.id}", "first", once=False)
                case "once":
                    yield from self._do(claim, "once", f"key {self._dice.randint(1, 40)}", once=True)
                case "note":
                    self._quietly(self._engine.note, [Note(claim.id, claim.fence, Progress(1))])
                case _:
                    job = self._new_job(plain=True)
                    self._quietly(self._engine.add, [AddRequest((job,), (claim.id, claim.fence))])
            yield

    def _do(self, claim: Claim, scope: str, key: str, *, once: bool) -> Iterator[None]:
        begun = self._quietly(self._engine.begin, claim.id, claim.fence, scope, key, 10**9 if once else None)
        if begun is None or begun.value is not None or (once and not begun.first):
            return
        yield
        effect(self._log, claim.id, claim.fence, scope, key, once=once)
        yield
        self._quietly(self._engine.record, claim.id, claim.fence, scope, key, _result(claim))

    def _quietly(self, call: Callable[..., Any], *given: Any) -> Any:
        """Make a call whose failure ends only what the job was about to do."""
        try:
            return call(*given)
        except (EngineDown, LeaseLost):
            return None

    # -- producers and an operator ------------------------------------------------------------------------------------

    def _enqueue(self) -> None:
        if self._to_retry and self._dice.random() < 0.5:
            request = self._to_retry.pop()
        else:
            plain = self._dice.random() < 0.6
            size = self._dice.choice([1, 1, 2, 5]) if plain else self._dice.choice([1, 1, 1, 2])
            request = AddRequest(tuple(self._new_job(plain=plain) for _ in range(size)))
        try:
            answer = self._engine.add([request])[0]
        except EngineDown:
            self._to_retry.append(request)
            raise
        if isinstance(answer, list):
            self._accepted += [added.id for added in answer]

    def _new_job(self, *, plain: bool) -> NewJob:
        self._numbers += 1
        task, key = self._dice.choice(list(RUNNERS)), None
        details = Details()
        if not plain and self._dice.random() < 0.5:
            key = f"order {self._dice.randint(1, 60)}"
            task, details = "a", Details(idempotency_key=key)
        elif not plain:
            details = Details(unique=self._unique())
        envelope, crc = encode_envelope(task, f'["{key or self._numbers}"]'.encode(), b"{}")
        return NewJob(
            id=JobId(f"01890a5d-ac96-774b-bcce-{self._numbers:012d}"),
            task=task,
            envelope=envelope,
            crc=crc,
            queue=self._dice.choice(QUEUES),
            delay_ms=self._dice.choice([0, 0, 0, 300]),
            expires_in_ms=self._dice.choice([None] * 9 + [2000]),
            policy=self._dice.choice(POLICIES),
            details=details,
        )

    def _unique(self) -> Unique:
        key = self._dice.choice("klmnop")
        until = self._dice.choice(["started", "ended", "ended"])
        return Unique(key=f"{key} {until}", until=until, clash=self._dice.choice(["keep", "replace", "refuse"]))

    def _alter(self) -> None:
        if self._accepted:
            ids = [self._dice.choice(self._accepted[-self._dice.choice([10, 200]) :])]
            self._engine.alter(ids, self._alteration())

    def _evict(self) -> None:
        self._engine.evict([self._anyone()[0].id])

    def _alteration(self) -> Alteration:
        several: list[Alteration] = [Cancel(), Cancel(), Kick(), Upgrade(), Edit(priority=1), Reschedule(delay_ms=100)]
        return self._dice.choice([*several, Bury(), Delete(), Kick(delay_ms=100), Kick(trial=True)])

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Go on without faults until nothing is left to do."""
        self._is_over = True
        for request in self._to_retry:
            self._engine.add([request])
        for _ in range(150):
            self._staff()
            self._pass_time()
            self._clock.turn(LEASE_MS // 4)
            for worker in self._awake():
                self._work_off(worker)
            if all(row.states.keys() <= _FINAL for row in self._engine.counts()):
                return

    def _work_off(self, worker: Worker) -> None:
        try:
            self._renew(worker)
            self._take_over(worker)
            self._settle_taken(worker)
            for process in list(worker.processes):
                self._exchange(worker, process)
        except LeaseLost:
            return  # the next round makes good who is gone


_FINAL = {state for state in State if state.is_final}


def _result(claim: Claim) -> bytes:
    return f'"{claim.fence}"'.encode()


def _fate(taken: Taken) -> Outcome:
    """Give what a supervisor makes of a claim that it took over."""
    if taken.fate == "released":
        return Outcome(ending=Ending.RELEASED, started=False)
    ending = Ending.LOST if taken.fate == "lost" else Ending.CRASHED
    error = ErrorInfo(kind=ending.value, message=f"at {taken.claim.fence}", attempt=taken.claim.attempt)
    return Outcome(ending=ending, error=error, cancel_requested=taken.claim.cancel_requested)


def _forged(claim: Claim) -> Change:
    """Give the end of a claim whose number was given out in another past, with another token."""
    fence = Fence(claim.fence.number, claim.fence.token ^ 1)
    outcome = Outcome(ending=Ending.SUCCEEDED, result=b'"another past"')
    return settling.settle(replace(claim, fence=fence), outcome, 0.0)
