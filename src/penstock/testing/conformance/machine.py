"""Random calls to the engine under test and to the memory engine, whose every answer and full state must be the same.

Both read one clock. What differs by nature is left out or mapped: the tokens of fences are named by their claim, marks
count on a scale of each engine's own, and rates are estimates.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Struct
from msgspec.structs import replace

from penstock.engine import (
    AddRequest,
    Alteration,
    Answer,
    Bury,
    Cancel,
    Death,
    Delete,
    Edit,
    Engine,
    Filter,
    Kick,
    Note,
    QueueInfo,
    Renewed,
    Reschedule,
    Taken,
    Tended,
    Want,
    WorkerInfo,
)
from penstock.engines.open import open_engine
from penstock.model.errors import JobRefused, PenstockError, QueueFull
from penstock.model.job import (
    Change,
    Claim,
    Counters,
    Details,
    ErrorInfo,
    Fence,
    Job,
    JobId,
    LedgerEntry,
    NewJob,
    ProcessId,
    Progress,
    Unique,
)
from penstock.model.outcome import Ending, Outcome
from penstock.model.retry import Fixed, Policy
from penstock.model.settle import settle
from penstock.model.states import FINAL, Cause, State
from penstock.testing.clock import TurnedClock
from penstock.testing.conformance.trial import EngineFactory

LEASE_MS = 5000
RUNNERS = {"a": "thread", "b": "thread", "c": "process"}
QUEUES = ("default", "mail", "slow")
PROCESSES = tuple(ProcessId(f"p{number}") for number in range(4))
GHOST = JobId("ghost")
UNNAMED = JobId("")
WORKER_OF = {process: f"w{number % 2}" for number, process in enumerate(PROCESSES)}

POLICIES = (
    Policy(backoff=Fixed(1.0), keep_ms=4000),
    Policy(max_attempts=2, backoff=Fixed(0.0), keep_ms=60_000),
    Policy(max_attempts=1, max_crashes=0, keep_ms=0),
)

_T = TypeVar("_T")

ClaimName = tuple[JobId, int]
Told = tuple[str, Any]


class Side:
    """One of the two engines, with the real fences of the claims that both speak of by name."""

    def __init__(self, factory: EngineFactory | None, clock: TurnedClock) -> None:
        self._factory, self._clock = factory, clock
        self.engine = self._open()
        self.tokens: dict[ClaimName, int] = {}
        self.names: dict[int, ClaimName] = {}

    def _open(self) -> Engine:
        return self._factory.make(self._clock) if self._factory else open_engine("memory://", clock=self._clock)

    def reopen(self) -> None:
        if self._factory is not None:
            self.engine.close()
            self.engine = self._open()

    def fence(self, name: ClaimName) -> Fence:
        return Fence(name[1], self.tokens.get(name, 0))

    def real(self, change: Change) -> Change:
        return replace(change, fence=self.fence((change.id, change.fence.number)))

    def exchange(self, process: ProcessId, content: "Exchange") -> Answer:
        changes = [self.real(change) for change in content.changes]
        return self.engine.exchange(process, content.beat, changes, content.want)

    def learn(self, claim: Claim) -> Claim:
        """Note the token of a claim and give the claim without it."""
        name = (claim.id, claim.fence.number)
        self.tokens[name] = claim.fence.token
        self.names[claim.fence.token] = name
        return replace(claim, fence=Fence(claim.fence.number, 0))

    def ask(self, call: Callable[["Side"], object]) -> Told:
        """Do one call and tell its answer or error in words that do not depend on the engine."""
        try:
            return "answered", self._plain(call(self))
        except (PenstockError, ValueError) as error:
            return "raised", type(error).__name__

    def _plain(self, answer: object) -> object:
        match answer:
            case Answer():
                claims = [self.learn(claim) for claim in answer.claims]
                cancels = sorted(self.names[fence.token] for fence in answer.cancels)
                return replace(answer, claims=tuple(claims), cancels=(), mark=0), cancels
            case Renewed() | Tended():
                return replace(answer, taken=tuple(sorted(map(self._taken, answer.taken), key=_id_of_taken)))
            case PenstockError():
                # Of several full queues any may be named, and when to come back follows from rates.
                tells = isinstance(answer, JobRefused) and not isinstance(answer, QueueFull)
                return type(answer).__name__, vars(answer) if tells else None
            case QueueInfo():
                return replace(answer, rate=0.0)
            case list():
                return [self._plain(one) for one in answer]
        return answer

    def _taken(self, taken: Taken) -> Taken:
        return replace(taken, claim=self.learn(taken.claim))

    def state(self) -> dict[str, object]:
        """Give all that can be read of the store."""
        engine = self.engine
        jobs = engine.find(Filter(limit=1000)).jobs
        return {
            "jobs": {job.id: job for job in jobs},
            "order": [job.id for job in jobs],
            "counts": engine.counts(),
            "queues": [replace(queue, rate=0.0) for queue in engine.queues()],
            "workers": [replace(view, processes=tuple(sorted(view.processes))) for view in engine.workers()],
            "logs": {job.id: engine.log(job.id) for job in jobs},
            "late": engine.describe().late_results,
        }


class Exchange(Struct, frozen=True):
    """The last exchange of a process, in words of neither engine, to be repeated as after a lost reply."""

    beat: int
    changes: tuple[Change, ...]
    want: Want | None


def _sorted(answer: Answer) -> Answer:
    return replace(answer, claims=tuple(sorted(answer.claims, key=lambda claim: claim.id)))


def _belated(name: ClaimName) -> Change:
    """Make the change of one who does not know that the claim is gone."""
    id, number = name
    return Change(id=id, fence=Fence(number, 0), cause=Cause.SUCCEED, next=State.SUCCEEDED, result=b"0")


def _id_of_taken(taken: Taken) -> str:
    return taken.claim.id


# -- what is drawn ----------------------------------------------------------------------------------------------------

_durations = st.sampled_from([0, 1, 999, 1000, 3000])
_uniques = st.builds(
    Unique,
    key=st.sampled_from(["k", "l"]),
    until=st.sampled_from(["started", "ended", "window"]),
    window_ms=st.sampled_from([1, 2000]),
    clash=st.sampled_from(["keep", "replace", "refuse"]),
)
_details = st.builds(
    Details,
    tags=st.sampled_from([(), ("red",), ("red", "blue")]),
    unique=st.none() | _uniques,
    idempotency_key=st.sampled_from([None, None, None, "i", "j"]),
)
_wants = st.builds(
    Want,
    tasks=st.sampled_from([RUNNERS, RUNNERS, RUNNERS, {"a": "thread"}, {"b": "thread", "c": "process"}]),
    free=st.sampled_from(
        [
            {"thread": 9, "process": 9},
            {"thread": 9, "process": 9},
            {"thread": 1, "process": 1},
            {"thread": 2},
            {"process": 3},
        ]
    ),
    queues=st.sampled_from([None, None, None, (QUEUES,), (("mail",), ("default", "slow")), (("slow",),)]),
    limit=st.sampled_from([1, 3, 1000, 1000]),
)
_endings = st.sampled_from(
    [Ending.SUCCEEDED, Ending.SUCCEEDED, Ending.FAILED, Ending.TIMED_OUT, Ending.CRASHED, Ending.LOST,
     Ending.SNOOZED, Ending.RELEASED, Ending.CANCELLED]
)  # fmt: skip
_alterations: st.SearchStrategy[Alteration] = st.one_of(
    st.just(Cancel()),
    st.just(Cancel()),
    st.just(Kick()),
    st.just(Kick()),
    st.just(Delete()),
    st.builds(Bury, reason=st.sampled_from(["wrong", "odd"])),
    st.builds(Reschedule, run_at_ms=st.sampled_from([None, None, 1]), delay_ms=_durations),
    st.builds(
        Edit,
        envelope=st.sampled_from([None, b'{"v":1,"task":"a","args":[9]}']),
        queue=st.sampled_from([None, "mail"]),
        priority=st.sampled_from([None, 0, 5]),
        tags=st.sampled_from([None, ("new",)]),
    ),
)
_some = st.lists(st.integers(0, 99), min_size=1, max_size=4)
_processes = st.sampled_from(PROCESSES)
_picks = st.none() | st.integers(0, 99)
_filters = st.builds(
    Filter,
    queue=st.sampled_from([None, "mail", "nowhere"]),
    states=st.none() | st.frozensets(st.sampled_from(list(State))),
    task=st.sampled_from([None, "a"]),
    tag=st.sampled_from([None, "red", "re"]),
    text=st.sampled_from([None, "JOB-00", "odd", "[0]", "ODD", "nothing"]),
    before=st.sampled_from([None, JobId("job-005")]),
    limit=st.sampled_from([1, 3, 1000]),
)


@st.composite
def _new_jobs(draw: st.DrawFn) -> NewJob:
    """Draw a job without an id; half of them are plain."""
    task, plain = draw(st.sampled_from("aabc")), draw(st.booleans())
    return NewJob(
        id=UNNAMED,
        task=task,
        envelope=f'{{"v":1,"task":"{task}","args":[{draw(st.sampled_from([0, 0, 0, 1]))}]}}'.encode(),
        crc=draw(st.sampled_from([None, 7])),
        queue=draw(st.sampled_from(QUEUES)),
        priority=draw(st.sampled_from([0, 0, 5, -100])),
        delay_ms=0 if plain else draw(_durations),
        expires_in_ms=None if plain else draw(st.sampled_from([None, None, 1, 2000])),
        policy=draw(st.sampled_from(POLICIES)),
        details=Details() if plain else draw(_details),
    )


@st.composite
def _outcomes(draw: st.DrawFn) -> Outcome:
    ending = draw(_endings)
    failed = ending in (Ending.FAILED, Ending.TIMED_OUT, Ending.CRASHED, Ending.LOST)
    return Outcome(
        ending=ending,
        result=draw(st.sampled_from([b"1", b'"two"'])) if ending is Ending.SUCCEEDED else None,
        error=ErrorInfo(ending.value, message=draw(st.sampled_from(["odd", "even"]))) if failed else None,
        after_ms=draw(st.sampled_from([None, 0, 1000])),
        started=draw(st.booleans()),
        cancel_requested=draw(st.booleans()),
        ran_us=draw(st.integers(0, 9)),
    )


@st.composite
def _loaded_jobs(draw: st.DrawFn) -> Job:
    """Draw a job of another store without an id; its times lie around zero, to be added to the time of day."""
    new = draw(_new_jobs())
    state = draw(st.sampled_from([State.READY, State.READY, State.SCHEDULED, *sorted(FINAL)]))
    history = tuple(
        ErrorInfo("failed", message=f"odd {n}", at_ms=n) for n in range(draw(st.sampled_from([0, 0, 1, 21])))
    )
    return Job(
        id=UNNAMED,
        state=state,
        task=new.task,
        queue=new.queue,
        envelope=new.envelope,
        priority=new.priority,
        policy=new.policy,
        details=new.details,
        counters=Counters(attempts=draw(st.sampled_from([0, 0, 1])), crashes=draw(st.sampled_from([0, 0, 1]))),
        claim_number=draw(st.sampled_from([0, 0, 3])),
        cancel_requested=not state.is_final and draw(st.booleans()),
        created_ms=draw(st.sampled_from([-3000, -1000, 0])),
        due_ms=draw(st.sampled_from([-1, 0, 1000])) if state is State.SCHEDULED else None,
        expires_ms=draw(st.sampled_from([None, None, 1, 2000])),
        ended_ms=draw(st.sampled_from([-5000, 0])) if state.is_final else None,
        error=draw(st.sampled_from([None, history[-1]])) if history else None,
        history=history[-20:],
        result=b"3" if state is State.SUCCEEDED else None,
    )


# -- the machine ------------------------------------------------------------------------------------------------------


class Rivals(RuleBasedStateMachine):
    """The engine under test beside the memory engine; `held` follows who was given which claim."""

    make_store: Callable[[], EngineFactory]

    def __init__(self) -> None:
        super().__init__()
        self.clock = TurnedClock()
        self.factory = type(self).make_store()
        self.model, self.tested = Side(None, self.clock), Side(self.factory, self.clock)
        self.beats: dict[ProcessId, int] = {}
        self.last: dict[ProcessId, Exchange] = {}
        self.held: dict[ClaimName, tuple[ProcessId, Claim]] = {}
        self.past: list[ClaimName] = []
        self.jobs: list[NewJob] = []
        self.highest: dict[JobId, int] = {}

    def teardown(self) -> None:
        self.tested.engine.close()
        self.factory.discard()

    def both(self, call: Callable[[Side], object]) -> Any:
        """Do the same on both sides, see that they answer alike, and give the answer; None stands for an error."""
        expected, found = self.model.ask(call), self.tested.ask(call)
        assert found == expected
        return expected[1] if expected[0] == "answered" else None

    # -- work ---------------------------------------------------------------------------------------------------------

    @initialize(jobs=st.lists(_new_jobs(), min_size=4, max_size=8), want=_wants)
    def begin_with_work_under_way(self, jobs: list[NewJob], want: Want) -> None:
        for process in PROCESSES[:3]:
            self.enrol(process)
        self.add([jobs])
        for process in PROCESSES[:2]:
            self.claim(process, want)

    @rule(process=_processes)
    def enrol(self, process: ProcessId) -> None:
        alive = any(process in view.processes for view in self.model.engine.workers())
        info = WorkerInfo(id=WORKER_OF[process], lease_ms=LEASE_MS, slots=len(self.last))
        if self.both(lambda side: bool(side.engine.enrol(info, [process]))) and not alive:
            self.beats[process] = 0
            self.last.pop(process, None)

    @rule(requests=st.lists(st.lists(_new_jobs(), min_size=1, max_size=4), min_size=1, max_size=3))
    def add(self, requests: list[list[NewJob]]) -> None:
        named = [AddRequest(tuple(map(self._name, jobs))) for jobs in requests]
        self.both(lambda side: side.engine.add(named))

    @precondition(lambda self: self.jobs)
    @rule(picks=_some, other=st.sampled_from([None, None, b'{"v":1}']), new=_new_jobs())
    def add_again(self, picks: list[int], other: bytes | None, new: NewJob) -> None:
        # An id that was forgotten would begin a second life, whose claims have the names of the first.
        stored = [job for job in self.jobs if self.model.engine.get([job.id])[0] is not None]
        known = [self._pick(stored, pick) for pick in picks if stored]
        if known and other is not None:
            known[-1] = replace(known[-1], envelope=other)
        request = AddRequest((self._name(new), *known))
        self.both(lambda side: side.engine.add([request]))

    @precondition(lambda self: self.held or self.past)
    @rule(jobs=st.lists(_new_jobs(), max_size=2), pick=st.integers(0, 99))
    def add_children(self, jobs: list[NewJob], pick: int) -> None:
        name = self._pick([*self.past, *self.held], pick)
        named = tuple(map(self._name, jobs))
        self.both(lambda side: side.engine.add([AddRequest(named, (name[0], side.fence(name)))]))

    @rule(process=_processes, want=_wants)
    def claim(self, process: ProcessId, want: Want) -> None:
        self._do_exchange(process, Exchange(self.beats.get(process, 0) + 1, (), want))

    @precondition(lambda self: self.held)
    @rule(
        pick=st.integers(0, 99),
        outcomes=st.lists(_outcomes(), min_size=1, max_size=4),
        stale=_picks,
        follow_ups=st.lists(_new_jobs(), max_size=2),
        want=st.none() | _wants,
    )
    def deliver(
        self, pick: int, outcomes: list[Outcome], stale: int | None, follow_ups: list[NewJob], want: Want | None
    ) -> None:
        process, _ = self.held[self._pick([*self.held], pick)]
        own = [claim for holder, claim in self.held.values() if holder == process]
        changes = [settle(claim, outcome, 0.5) for claim, outcome in zip(own, outcomes, strict=False)]
        named = tuple(map(self._name, follow_ups))
        entry = LedgerEntry("scope", "x", b"1")
        changes[0] = replace(changes[0], follow_ups=named, ledger=(entry,) if named else ())
        if stale is not None and self.past:
            changes.insert(0, _belated(self._pick(self.past, stale)))
        self._do_exchange(process, Exchange(self.beats[process] + 1, tuple(changes), want))

    def _do_exchange(self, process: ProcessId, content: Exchange) -> None:
        answer = self.both(lambda side: side.exchange(process, content))
        if answer is None:
            self.enrol(process)
            return
        self.beats[process], self.last[process] = content.beat, content
        for change in content.changes:
            self._let_go((change.id, change.fence.number))
        for claim in answer[0].claims:
            self._hold(process, claim)

    @rule(process=_processes, step=st.sampled_from([0, 0, 0, 0, -1, 2]))
    def repeat_a_beat(self, process: ProcessId, step: int) -> None:
        """The answer was lost, so the same is asked again; the claims may come in another order.

        A call that found nothing is not remembered, nor is one with a later beat known: both ask anew.
        """
        content = self.last.get(process)
        if content is None:
            return
        content = replace(content, beat=content.beat + step)
        answer = self.both(lambda side: _sorted(side.exchange(process, content)))
        if answer is None:
            return
        self.beats[process] = max(self.beats[process], content.beat)
        for claim in answer[0].claims:
            if (claim.id, claim.fence.number) not in self.held:
                self._hold(process, claim)

    @rule(tender=_processes, leases=st.sets(_processes))
    def renew(self, tender: ProcessId, leases: set[ProcessId]) -> None:
        self.both(lambda side: side.engine.renew(tender, sorted(leases)))

    @precondition(lambda self: self.held)
    @rule(tender=_processes, pick=st.integers(0, 99), started=st.integers(0, 3))
    def report_a_death(self, tender: ProcessId, pick: int, started: int) -> None:
        dead, _ = self.held[self._pick([*self.held], pick)]
        names = [name for name, (holder, _) in self.held.items() if holder == dead][:started]
        if dead == tender:
            return

        def call(side: Side) -> object:
            return side.engine.renew(tender, [], [Death(dead, frozenset(side.tokens[name] for name in names))])

        renewed = self.both(call)
        if renewed is not None:
            self._take(tender, renewed.taken)

    @rule(tender=_processes)
    def tend(self, tender: ProcessId) -> None:
        tended = self.both(lambda side: side.engine.tend(tender))
        self._take(tender, tended.taken)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 99), reboots=st.booleans())
    def let_a_process_vanish(self, pick: int, reboots: bool) -> None:
        victim, _ = self.held[self._pick([*self.held], pick)]
        if reboots:
            self.clock.reboot()
        else:
            self.clock.turn(LEASE_MS)
        others = [process for process in PROCESSES if process != victim]
        for process in others:
            self.enrol(process)
        self.tend(self._pick(others, pick))

    @precondition(lambda self: self.held)
    @rule(picks=_some, stale=_picks, text=st.sampled_from(["", "a", "long"]))
    def note(self, picks: list[int], stale: int | None, text: str) -> None:
        names = [self._pick([*self.held], pick) for pick in picks]
        if stale is not None and self.past:
            names.append(self._pick(self.past, stale))
        progress = Progress(float(len(picks)), None, text)
        text = "ü" * 40_000 if text == "long" else text
        self.both(lambda side: side.engine.note([Note(name[0], side.fence(name), progress, text) for name in names]))

    @precondition(lambda self: self.held and "ledger" in self.tested.engine.capabilities)
    @rule(pick=st.integers(0, 99), key=st.sampled_from(["x", "y"]), value=st.none() | st.just(b"1"))
    def use_the_ledger(self, pick: int, key: str, value: bytes | None) -> None:
        name = self._pick([*self.past, *self.held], pick)
        if value is None:
            self.both(lambda side: side.engine.begin(name[0], side.fence(name), "scope", key, 3000))
        else:
            self.both(lambda side: side.engine.record(name[0], side.fence(name), "scope", key, value))

    # -- time, and hands ----------------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 500, 999, 1000, 2000, 12_000]), jump_ms=st.sampled_from([0, 0, 0, 1000]))
    def let_time_pass(self, ms: int, jump_ms: int) -> None:
        self.clock.turn(ms)
        self.clock.jump_wall(jump_ms)

    @rule()
    def open_the_store_anew(self) -> None:
        self.tested.reopen()

    @rule(picks=_some, alteration=_alterations)
    def alter(self, picks: list[int], alteration: Alteration) -> None:
        ids = self._name_ids(picks)
        self.both(lambda side: side.engine.alter(ids, alteration))

    @rule(jobs=st.lists(_loaded_jobs(), min_size=1, max_size=4), known=_picks)
    def load(self, jobs: list[Job], known: int | None) -> None:
        named = [self._name_loaded(job) for job in jobs]
        if known is not None:
            named.append(replace(named[0], id=self._name_ids([known])[0]))
        self.both(lambda side: side.engine.load(named))

    @rule(picks=_some)
    def carry_away_and_back(self, picks: list[int]) -> None:
        ids = self._name_ids(picks)
        jobs = [job for job in self.model.engine.get(ids) if job is not None]
        self.both(lambda side: side.engine.alter(ids, Delete()))
        self.both(lambda side: side.engine.load([job for job in jobs if job.state is not State.RUNNING]))

    @rule(
        name=st.sampled_from(QUEUES),
        paused=st.sampled_from([None, True, False, False]),
        max_jobs=st.sampled_from([None, 0, 9]),
        unlimited=st.booleans(),
        drained=st.sampled_from([(), ("w0",), ("nobody", "w1")]),
    )
    def steer(
        self, name: str, paused: bool | None, max_jobs: int | None, unlimited: bool, drained: tuple[str, ...]
    ) -> None:
        self.both(lambda side: side.engine.alter_queue(name, paused=paused, max_jobs=max_jobs, unlimited=unlimited))
        self.both(lambda side: side.engine.drain(drained))

    # -- looks --------------------------------------------------------------------------------------------------------

    @rule(which=_filters, picks=_some, by_id=st.booleans())
    def look(self, which: Filter, picks: list[int], by_id: bool) -> None:
        ids = self._name_ids(picks)
        self.both(lambda side: side.engine.get(ids))
        self.both(lambda side: side.engine.find(replace(which, ids=ids if by_id else None)))

    @invariant()
    def stores_are_alike(self) -> None:
        expected, found = self.model.state(), self.tested.state()
        for part in expected:
            assert (part, found[part]) == (part, expected[part])

    @invariant()
    def counts_agree_with_a_recount(self) -> None:
        recount: dict[tuple[str, str], dict[State, int]] = {}
        for job in self.tested.engine.find(Filter(limit=1000)).jobs:
            states = recount.setdefault((job.queue, job.task), {})
            states[job.state] = states.get(job.state, 0) + 1
        counts = {(row.queue, row.task): dict(row.states) for row in self.tested.engine.counts()}
        assert counts == recount

    @invariant()
    def running_jobs_have_one_claim_each(self) -> None:
        running = {
            (job.id, job.claim_number)
            for job in self.tested.engine.find(Filter(limit=1000, states=frozenset({State.RUNNING}))).jobs
        }
        assert running == self.held.keys()

    # -- what is known of claims --------------------------------------------------------------------------------------

    def _hold(self, process: ProcessId, claim: Claim) -> None:
        assert claim.fence.number > self.highest.get(claim.id, 0), "claim numbers rise"
        self.highest[claim.id] = claim.fence.number
        self.held[claim.id, claim.fence.number] = (process, claim)

    def _let_go(self, name: ClaimName) -> None:
        if self.held.pop(name, None) is not None:
            self.past.append(name)

    def _take(self, tender: ProcessId, taken: tuple[Taken, ...]) -> None:
        for one in taken:
            self._let_go((one.claim.id, one.claim.fence.number - 1))
            self._hold(tender, one.claim)

    def _name(self, job: NewJob) -> NewJob:
        """Give a drawn job its id."""
        self.jobs.append(replace(job, id=JobId(f"job-{len(self.jobs):03}")))
        return self.jobs[-1]

    def _name_loaded(self, job: Job) -> Job:
        """Give a drawn job of another store its id, and bring its times near the time of day."""
        now = self.clock.wall_ms()
        new = NewJob(id=UNNAMED, task=job.task, envelope=job.envelope, queue=job.queue, details=job.details)
        return replace(
            job,
            id=self._name(new).id,
            created_ms=now + job.created_ms,
            due_ms=None if job.due_ms is None else now + job.due_ms,
            expires_ms=None if job.expires_ms is None else now + job.expires_ms,
            ended_ms=None if job.ended_ms is None else now + job.ended_ms,
        )

    def _name_ids(self, picks: list[int]) -> tuple[JobId, ...]:
        return tuple(self._pick([*(job.id for job in self.jobs), GHOST], pick) for pick in picks)

    @staticmethod
    def _pick(several: Sequence[_T], pick: int) -> _T:
        return several[pick % len(several)]


def machine(make_store: Callable[[], EngineFactory]) -> type[RuleBasedStateMachine]:
    """Give a rule machine that compares the memory engine with another; `.TestCase` of it is what pytest runs.

    Args:
        make_store: gives a factory over a new, empty store each time.
    """
    return type("Rivals", (Rivals,), {"make_store": staticmethod(make_store)})
