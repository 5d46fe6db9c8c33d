"""Random calls to the engine under test and to the memory engine, whose every answer and full state must be the same.

Both read one clock. What differs by nature is left out or mapped: the tokens of fences are named by their claim, marks
count on a scale of each engine's own, and rates are estimates.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from penstock.engine import (
    AddRequest,
    Alteration,
    Answer,
    Death,
    Delete,
    Filter,
    Note,
    Taken,
    Want,
    WorkerInfo,
)
from penstock.model.job import (
    Change,
    Claim,
    Fence,
    Job,
    JobId,
    LedgerEntry,
    NewJob,
    ProcessId,
    Progress,
)
from penstock.model.outcome import Outcome
from penstock.model.settle import settle
from penstock.model.states import Cause, State
from penstock.testing.clock import TurnedClock
from penstock.testing.conformance import drawing
from penstock.testing.conformance.drawing import GHOST, LEASE_MS, PROCESSES, QUEUES, UNNAMED, WORKER_OF
from penstock.testing.conformance.sides import ClaimName, Exchange, Side
from penstock.testing.conformance.trial import EngineFactory

_T = TypeVar("_T")


def _sorted(answer: Answer) -> Answer:
    return replace(answer, claims=tuple(sorted(answer.claims, key=lambda claim: claim.id)))


def _belated(name: ClaimName) -> Change:
    """Make the change of one who does not know that the claim is gone."""
    id, number = name
    return Change(id=id, fence=Fence(number, 0), cause=Cause.SUCCEED, next=State.SUCCEEDED, result=b"0")


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

    @initialize(jobs=st.lists(drawing.new_jobs(), min_size=4, max_size=8), want=drawing.wants)
    def begin_with_work_under_way(self, jobs: list[NewJob], want: Want) -> None:
        for process in PROCESSES[:3]:
            self.enrol(process)
        self.add([jobs])
        for process in PROCESSES[:2]:
            self.claim(process, want)

    @rule(process=drawing.processes)
    def enrol(self, process: ProcessId) -> None:
        alive = any(process in view.processes for view in self.model.engine.workers())
        info = WorkerInfo(id=WORKER_OF[process], lease_ms=LEASE_MS, slots=len(self.last))
        if self.both(lambda side: bool(side.engine.enrol(info, [process]))) and not alive:
            self.beats[process] = 0
            self.last.pop(process, None)

    @rule(requests=st.lists(st.lists(drawing.new_jobs(), min_size=1, max_size=4), min_size=1, max_size=3))
    def add(self, requests: list[list[NewJob]]) -> None:
        named = [AddRequest(tuple(map(self._name, jobs))) for jobs in requests]
        self.both(lambda side: side.engine.add(named))

    @precondition(lambda self: self.jobs)
    @rule(picks=drawing.some, other=st.sampled_from([None, None, b'{"v":1}']), new=drawing.new_jobs())
    def add_again(self, picks: list[int], other: bytes | None, new: NewJob) -> None:
        stored = self._stored()
        known = [self._pick(stored, pick) for pick in picks if stored]
        if known and other is not None:
            known[-1] = replace(known[-1], envelope=other)
        request = AddRequest((self._name(new), *known))
        self.both(lambda side: side.engine.add([request]))

    @precondition(lambda self: self.held or self.past)
    @rule(jobs=st.lists(drawing.new_jobs(), max_size=2), pick=st.integers(0, 99))
    def add_children(self, jobs: list[NewJob], pick: int) -> None:
        name = self._pick([*self.past, *self.held], pick)
        named = tuple(map(self._name, jobs))
        self.both(lambda side: side.engine.add([AddRequest(named, (name[0], side.fence(name)))]))

    @rule(process=drawing.processes, want=drawing.wants)
    def claim(self, process: ProcessId, want: Want) -> None:
        self._do_exchange(process, Exchange(self.beats.get(process, 0) + 1, (), want))

    @precondition(lambda self: self.held)
    @rule(
        pick=st.integers(0, 99),
        outcomes=st.lists(drawing.outcomes(), min_size=1, max_size=4),
        stale=drawing.picks,
        follow_ups=st.lists(drawing.new_jobs(), max_size=2),
        want=st.none() | drawing.wants,
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

    @rule(process=drawing.processes, step=st.sampled_from([0, 0, 0, 0, -1, 2]))
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

    @rule(tender=drawing.processes, leases=st.sets(drawing.processes))
    def renew(self, tender: ProcessId, leases: set[ProcessId]) -> None:
        self.both(lambda side: side.engine.renew(tender, sorted(leases)))

    @precondition(lambda self: self.held)
    @rule(tender=drawing.processes, pick=st.integers(0, 99), started=st.integers(0, 3))
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

    @rule(tender=drawing.processes)
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
    @rule(picks=drawing.some, stale=drawing.picks, text=st.sampled_from(["", "a", "long"]))
    def note(self, picks: list[int], stale: int | None, text: str) -> None:
        names = [self._pick([*self.held], pick) for pick in picks]
        if stale is not None and self.past:
            names.append(self._pick(self.past, stale))
        progress = Progress(float(len(picks)), None, text)
        text = "ü" * 40_000 if text == "long" else text
        self.both(lambda side: side.engine.note([Note(name[0], side.fence(name), progress, text) for name in names]))

    @precondition(lambda self: self.held and "ledger" in self.tested.engine.capabilities)
    @rule(
        pick=st.integers(0, 99),
        key=st.sampled_from(["x", "y"]),
        keep_ms=st.sampled_from([None, 3000]),
        value=st.sampled_from([None, b"1"]),
        does=st.sampled_from(["begin", "begin", "record", "correct"]),
    )
    def use_the_ledger(self, pick: int, key: str, keep_ms: int | None, value: bytes | None, does: str) -> None:
        name = self._pick([*self.past, *self.held], pick)
        if does == "begin":
            self.both(lambda side: side.engine.begin(name[0], side.fence(name), "scope", key, keep_ms))
        elif does == "record":
            self.both(lambda side: side.engine.record(name[0], side.fence(name), "scope", key, value))
        else:
            self.both(lambda side: side.engine.record(None, None, "scope", key, value))

    @rule(
        key=st.sampled_from(["x", "y"]),
        value=st.sampled_from([None, b"", b"1"]),
        was=st.sampled_from([None, None, b"", b"1"]),
    )
    def share(self, key: str, value: bytes | None, was: bytes | None) -> None:
        self.both(lambda side: side.engine.share("kind", key, value, was))
        self.both(lambda side: side.engine.shared("kind"))

    # -- time, and hands ----------------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 500, 999, 1000, 2000, 12_000]), jump_ms=st.sampled_from([0, 0, 0, 1000]))
    def let_time_pass(self, ms: int, jump_ms: int) -> None:
        self.clock.turn(ms)
        self.clock.jump_wall(jump_ms)

    @rule()
    def open_the_store_anew(self) -> None:
        self.tested.reopen()

    @rule(picks=drawing.some, alteration=drawing.alterations)
    def alter(self, picks: list[int], alteration: Alteration) -> None:
        ids = self._name_ids(picks)
        self.both(lambda side: side.engine.alter(ids, alteration))

    @rule(jobs=st.lists(drawing.loaded_jobs(), min_size=1, max_size=4), known=drawing.picks)
    def load(self, jobs: list[Job], known: int | None) -> None:
        named = [self._name_loaded(job) for job in jobs]
        if known is not None and (stored := self._stored()):
            named.append(replace(named[0], id=self._pick(stored, known).id))
        self.both(lambda side: side.engine.load(named))

    @rule(picks=drawing.some)
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

    @rule(evicted=st.sampled_from([(), (), ("w0",), ("w1", "nobody")]))
    def evict(self, evicted: tuple[str, ...]) -> None:
        self.both(lambda side: side.engine.evict(evicted))

    # -- looks --------------------------------------------------------------------------------------------------------

    @rule(which=drawing.filters, picks=drawing.some, by_id=st.booleans())
    def look(self, which: Filter, picks: list[int], by_id: bool) -> None:
        ids = self._name_ids(picks)
        self.both(lambda side: side.engine.get(ids))
        self.both(lambda side: side.engine.find(replace(which, ids=ids if by_id else None)))

    @precondition(lambda self: self.model.engine.groups())
    @rule(which=drawing.filters, pick=st.integers(0, 99))
    def look_at_a_group(self, which: Filter, pick: int) -> None:
        group = self._pick(self.model.engine.groups(), pick).id
        self.both(lambda side: side.engine.find(Filter(group=group)))
        self.both(lambda side: side.engine.find(replace(which, group=group)))

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

    def _stored(self) -> list[NewJob]:
        """Give the jobs to add once more; a forgotten one would begin anew, with claims named as before."""
        return [job for job in self.jobs if self.model.engine.get([job.id])[0] is not None]

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
