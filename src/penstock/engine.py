"""What penstock asks of storage: the values that go in and out, and the protocol that every engine keeps.

The protocol is synchronous and thread-safe. Each verb is one atomic step. No verb holds policy: what becomes of a job
is decided in `penstock.model`, and an engine writes it down. All durations are counted by the store's own clock.

Every verb may raise `EngineUnavailable` (nothing was changed, or a repetition is harmless) within its deadline.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from penstock.model.errors import PenstockError
from penstock.model.job import Change, Claim, Fence, Job, JobId, NewJob, ProcessId, Progress
from penstock.model.states import State

__all__ = [
    "ALL_CAPABILITIES",
    "MOST_AT_ONCE",
    "AddRequest",
    "Added",
    "Alteration",
    "Altered",
    "Answer",
    "Begun",
    "Bury",
    "Cancel",
    "Clock",
    "Counts",
    "Death",
    "Delete",
    "Edit",
    "Engine",
    "EngineInfo",
    "Examination",
    "Filter",
    "Finding",
    "Group",
    "Kick",
    "Note",
    "Page",
    "QueueInfo",
    "Renewed",
    "Reschedule",
    "Subject",
    "Taken",
    "Tended",
    "Upgrade",
    "Want",
    "WorkerInfo",
    "WorkerView",
]

#: The most jobs in one add request, changes or claims in one exchange, ids in one alteration.
MOST_AT_ONCE = 1000

#: What an engine may or may not offer. Asking for what it does not declare raises `Unsupported`.
#: `transactions`: `add_within`; `ledger`: `begin` and `record`; the others are fields of a job.
ALL_CAPABILITIES = frozenset({"transactions", "ledger", "parents", "order_key", "limit_keys", "needs", "fair_key"})


class Clock(Protocol):
    """Where an engine reads the time; tests open an engine with a clock they can turn."""

    def wall_ms(self) -> int:
        """Give the time of day in ms since the epoch: due times, deadlines, retention."""
        ...

    def steady_ms(self) -> int:
        """Give ms that never jump and also run while the machine sleeps: leases."""
        ...

    def boot(self) -> str:
        """Give the identity of this run of the machine; steady times of another boot mean nothing."""
        ...


class AddRequest(Struct, frozen=True, gc=False):
    """Up to 1,000 jobs that are stored whole or not at all.

    Attributes:
        parent: the claim in whose name they are added; a stale one refuses the request with `LeaseLost`.
    """

    jobs: tuple[NewJob, ...]
    parent: tuple[JobId, Fence] | None = None


class Added(Struct, frozen=True, gc=False):
    """What became of one new job: the id to follow, and whether that job was there before."""

    id: JobId
    existing: bool = False


class WorkerInfo(Struct, frozen=True, kw_only=True):
    """One `penstock worker` as it presents itself.

    Attributes:
        unfit: why it claims nothing now, empty while it is fit.
        boot, birth: which run of its machine, and which process there; with `pid` they tell whether it still lives.
    """

    id: str
    host: str = ""
    pid: int = 0
    boot: str = ""
    birth: str = ""
    version: str = ""
    queues: tuple[str, ...] | None = None
    tasks: tuple[str, ...] = ()
    slots: int = 0
    lease_ms: int = 30_000
    unfit: str = ""


class Want(Struct, frozen=True, kw_only=True):
    """What a process can take now.

    Attributes:
        queues: groups in order; within a group priority decides, then the order of arrival. None takes every queue.
        tasks: the tasks it knows, each with the runner that runs it.
        free: how many jobs each runner can take. Jobs that run alone (see `Counters.runs_alone`) use the runner
            `process`, whatever their task's runner.
        limit: most jobs in all, at most 1,000.
    """

    tasks: Mapping[str, str]
    free: Mapping[str, int]
    queues: tuple[tuple[str, ...], ...] | None = None
    limit: int = MOST_AT_ONCE


class Answer(Struct, frozen=True, kw_only=True):
    """What an exchange gives back.

    Attributes:
        claims: jobs to run.
        late: ids of the changes that were refused because their fence was stale.
        cancels: fences of its running jobs that were asked to stop; each is named at least once.
        drain: whether the process should finish what it has and end.
        now_ms: the store's time of day.
        mark: where `wait` goes on from.
    """

    claims: tuple[Claim, ...] = ()
    late: tuple[JobId, ...] = ()
    cancels: tuple[Fence, ...] = ()
    drain: bool = False
    now_ms: int = 0
    mark: int = 0


class Death(Struct, frozen=True):
    """A process that has ended, and the tokens of the claims whose code had begun in it."""

    process: ProcessId
    started: frozenset[int] = frozenset()


class Taken(Struct, frozen=True):
    """A claim that was taken over from a void lease under a new fence, to be settled by the one who took it.

    Attributes:
        fate: `crashed` if its code had begun in a process that was seen to die, `released` if it had not begun,
            `lost` if nobody saw what had begun.
        previous: the process that held it.
    """

    claim: Claim
    fate: Literal["crashed", "released", "lost"]
    previous: ProcessId


class Renewed(Struct, frozen=True):
    """What the supervisor's heartbeat gives back.

    Attributes:
        void: processes whose lease is gone; their jobs were handed on and must stop.
        drain: processes that should finish what they have and end.
        taken: claims of the reported dead, now held by the tender.
    """

    void: tuple[ProcessId, ...] = ()
    drain: tuple[ProcessId, ...] = ()
    taken: tuple[Taken, ...] = ()


class Tended(Struct, frozen=True):
    """What passing time did in one bounded step.

    Attributes:
        due, expired, pruned: how many jobs became ready, expired, were forgotten.
        taken: claims of lapsed leases, now held by the tender.
        more: whether the bound was reached and another call has work to do.
        next_ms: how long until the next job is due or expires; None if none waits for a time.
        lapse_ms: how long until the first lease of another process than the tender lapses, 0 if one has that was not
            voided; None if there is none.
    """

    due: int = 0
    expired: int = 0
    pruned: int = 0
    taken: tuple[Taken, ...] = ()
    more: bool = False
    next_ms: int | None = None
    lapse_ms: int | None = None


class Subject(Struct, frozen=True):
    """What `wait` waits for; the fields that are set add up.

    Attributes:
        queues: a job became ready in one of these queues; an empty tuple means any queue.
        jobs: one of these jobs ended (at most 1,000).
        process: it was asked to cancel a job or to drain.
        due: a job was scheduled; who tends the store waits for this.
    """

    queues: tuple[str, ...] | None = None
    jobs: tuple[JobId, ...] = ()
    process: ProcessId | None = None
    due: bool = False


class Begun(Struct, frozen=True):
    """What the ledger knows of a side effect: `first` to begin it, begun before by `by`, or done with `value`."""

    first: bool
    by: JobId | None = None
    value: bytes | None = None


class Note(Struct, frozen=True):
    """Progress and log text of one running job. Text is appended; the store keeps the last 64 KiB per attempt."""

    id: JobId
    fence: Fence
    progress: Progress | None = None
    log: str = ""
    attempt: int = 1


class Filter(Struct, frozen=True, kw_only=True):
    """Which jobs to look at. Fields that are set all apply; an empty filter matches every job.

    Attributes:
        degraded: whether a fallback gave the result.
        text: found in the id, task name, arguments or last error, without regard to ASCII case.
        group: buried jobs of this group alone.
        before: only jobs with a smaller id; `Page.next` of the page before.
        limit: most jobs, 1 to 1,000.
    """

    ids: tuple[JobId, ...] | None = None
    queue: str | None = None
    states: frozenset[State] | None = None
    task: str | None = None
    tag: str | None = None
    degraded: bool | None = None
    text: str | None = None
    group: str | None = None
    before: JobId | None = None
    limit: int = 100


class Page(Struct, frozen=True):
    """Jobs in falling order of id (newest first), and where the next page begins, None at the end."""

    jobs: tuple[Job, ...]
    next: JobId | None = None


class Group(Struct, frozen=True):
    """Buried jobs that failed alike; see `penstock.model.groups`.

    Attributes:
        first_ms, last_ms: when the first and the last of those that are there were buried.
        sample: one of them; which one is for the engine to say.
    """

    id: str
    count: int
    first_ms: int
    last_ms: int
    sample: JobId


class Counts(Struct, frozen=True):
    """How many jobs of one task stand in each state of one queue; zero counts are left out."""

    queue: str
    task: str
    states: Mapping[State, int]


class QueueInfo(Struct, frozen=True, kw_only=True):
    """A queue, its switches, and how it moves.

    Attributes:
        max_jobs: most unfinished jobs it takes; None has no bound.
        unfinished: jobs that are blocked, scheduled, ready or running.
        rate: jobs ended per second over about the last minute.
        oldest_ms: how long the ready job that took its place in line first has stood there; None if none is ready.
    """

    name: str
    paused: bool = False
    max_jobs: int | None = None
    unfinished: int = 0
    rate: float = 0.0
    oldest_ms: int | None = None


class WorkerView(Struct, frozen=True, kw_only=True):
    """A worker as the store sees it: its processes, what they hold, and how fresh its lease is."""

    info: WorkerInfo
    processes: tuple[ProcessId, ...]
    running: int = 0
    drain: bool = False
    lease_left_ms: int = 0
    enrolled_ms: int = 0


class EngineInfo(Struct, frozen=True, kw_only=True):
    """What an engine says of itself, from its live settings.

    Attributes:
        url: where the store is, without its password.
        durability: D0 lost with the process, D1 survives kills of workers and producers, D2 also power loss, D3 also
            the loss of the machine.
        epoch: a random id that changes when the store is restored or copied.
        late_results: results refused because their claim had been handed on, since the store was made.
        notes: what a person should know, as "this SQLite has the WAL-reset bug".
    """

    kind: str
    url: str
    durability: str
    version: str
    schema: int
    epoch: str
    capabilities: frozenset[str] = frozenset()
    late_results: int = 0
    size_bytes: int | None = None
    notes: tuple[str, ...] = ()


class Finding(Struct, frozen=True):
    """One thing that was examined: what was found, whether that is well, and the way out if it is not."""

    subject: str
    verdict: Literal["ok", "warning", "fault"]
    found: str
    remedy: str = ""


class Examination(Struct, frozen=True, kw_only=True):
    """What a look at a store from outside shows, without changing or making anything.

    Attributes:
        exists: whether there is a store at the URL.
        schema: the schema it has, None if there is none or it cannot be read; `known_schema` is this version's.
    """

    exists: bool
    findings: tuple[Finding, ...] = ()
    schema: int | None = None
    known_schema: int = 0


class Cancel(Struct, frozen=True, tag="cancel"):
    """End waiting jobs as cancelled; ask running ones to stop."""


class Kick(Struct, frozen=True, tag="kick"):
    """Make jobs ready, now or after a delay; failures, crashes and attempts start again from 0.

    Attributes:
        trial: with one attempt only: the first failure is the last.
    """

    delay_ms: int = 0
    trial: bool = False


class Upgrade(Struct, frozen=True, tag="upgrade"):
    """Run the task of jobs that a fallback took over once more, with new chances; other jobs are left alone."""


class Edit(Struct, frozen=True, tag="edit"):
    """Change waiting or buried jobs; a buried one becomes ready as with `Kick`. None leaves a field as it is.

    Attributes:
        by: who does it; what the job was before is kept with it (see `Former`), unless this is empty.
    """

    envelope: bytes | None = None
    crc: int | None = None
    queue: str | None = None
    priority: int | None = None
    tags: tuple[str, ...] | None = None
    by: str = ""


class Reschedule(Struct, frozen=True, tag="reschedule"):
    """Let ready or scheduled jobs wait until `run_at_ms`, or for `delay_ms` from now."""

    run_at_ms: int | None = None
    delay_ms: int = 0


class Bury(Struct, frozen=True, tag="bury"):
    """Take waiting jobs out of circulation; `reason` becomes their error."""

    reason: str = "buried by hand"


class Delete(Struct, frozen=True, tag="delete"):
    """Forget jobs that are not running, with their results and logs."""


Alteration = Cancel | Kick | Upgrade | Edit | Reschedule | Bury | Delete


class Altered(Struct, frozen=True):
    """What became of one job: its state before and after (None: gone), or why it was left alone.

    A running job that was asked to stop is `running` before and after, with no refusal.
    """

    id: JobId
    before: State | None
    after: State | None
    refused: str | None = None


class Engine(Protocol):
    """A store of jobs. See `penstock.testing.conformance` for what each verb must do, case by case."""

    @property
    def capabilities(self) -> frozenset[str]: ...

    # -- work ---------------------------------------------------------------------------------------------------------

    def enrol(self, worker: WorkerInfo, processes: Sequence[ProcessId]) -> str:
        """Give each process a lease of its own for `worker.lease_ms`; answers the store's epoch.

        Repeating it renews the leases and replaces what is known of the worker.
        """
        ...

    def add(self, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        """Store new jobs; each request is stored whole or not at all and has its own answer.

        before: ids unknown -> after: each job ready, or scheduled if it has a delay or a later time.
        Idempotency (id and key), uniqueness, capacity and parents are resolved in the same step. A known id or key with
        the same task and envelope answers `existing`; with other content the request is refused with
        `IdempotencyConflict`. When the call returns the jobs are as durable as the engine promises.
        """
        ...

    def add_within(self, connection: Any, requests: Sequence[AddRequest]) -> list[list[Added] | PenstockError]:
        """Do `add` inside the caller's transaction; capability `transactions`."""
        ...

    def exchange(self, process: ProcessId, beat: int, changes: Sequence[Change], want: Want | None) -> Answer:
        """Deliver what has ended, then claim what can run: one conversation, one transaction.

        before: changes' jobs running under their fences, ready jobs -> after: jobs as their changes say, up to
        `want` jobs running under new fences held by `process`.
        A change that moves its job lets it go on under another task, in another queue and at another stage; the
        deadline of a job that was moved to another stage is over, for it had started.
        A change with a stale fence is refused alone, counted and named in `late`; applying a change again is refused
        the same way and harmless. Ready jobs whose deadline has passed end expired instead of being claimed.
        `beat` rises with each call; repeating the last beat changes nothing and gives the stored answer again. A call
        without changes that claimed nothing is not remembered: an idle process costs the store no write, and to repeat
        such a call is to ask anew. At most 1,000 changes and 1,000 claims.

        Raises:
            ValueError: the beat is below 1, or below the last one that is remembered.
            LeaseLost: the lease of `process` is void or unknown; nothing was applied or claimed, and the changes are
                counted as late.
        """
        ...

    def renew(self, tender: ProcessId, leases: Sequence[ProcessId], deaths: Sequence[Death] = ()) -> Renewed:
        """Keep leases alive and report the dead, in one step.

        A lease that has lapsed but was not voided is revived. The leases of the dead are voided and their claims are
        taken over by `tender` (whose own lease is renewed too) under new fences. An engine may take over only 1,000
        claims in one call: the others, with the fate that was told, follow in the next `tend` of anyone.
        """
        ...

    def tend(self, tender: ProcessId, limit: int = MOST_AT_ONCE) -> Tended:
        """Do what passing time does, in one bounded step; safe to run anywhere at once.

        Due jobs become ready in order of their due time, unstarted ones past their deadline expire, ended ones past
        their retention (by age, and beyond the newest 100,000 of each queue) are forgotten, buried ones never.
        Lapsed leases, and all of another boot, are voided; their claims are taken over by `tender` under new fences.
        A `tender` without a live lease takes nothing over.
        """
        ...

    def wait(self, subject: Subject, since: int, timeout_s: float) -> None:
        """Return when something of `subject` may have changed since the mark, or after the timeout.

        A hint: false alarms and missed calls are legal. Never raises `EngineUnavailable` before the timeout is over.
        """
        ...

    def begin(self, id: JobId, fence: Fence, scope: str, key: str, keep_ms: int | None) -> Begun:
        """Write down that a side effect is about to happen; capability `ledger`.

        before: no live entry -> after: one, begun by this claim. It is kept for `keep_ms`, or with None as long as the
        job. Where there is one, the answer tells it and nothing is written; the claim that began it may ask again.
        """
        ...

    def record(self, id: JobId | None, fence: Fence | None, scope: str, key: str, value: bytes | None) -> bool:
        """Write down that a side effect happened and what it gave; None: that it did not. Capability `ledger`.

        before: any entry, or none -> after: one with the value, of this claim, kept as long as `begin` said, else as
        long as the job. With the value None an entry that this job began, and that has no value, is gone.
        A person who knows what nobody else does gives no job and no fence, and changes an entry that is there: it has
        the value, or is gone. Answers whether there was one; a claim is always told so.
        """
        ...

    def note(self, notes: Sequence[Note]) -> tuple[JobId, ...]:
        """Store progress and log text of running jobs; answers the ids refused for a stale fence."""
        ...

    def shared(self, kind: str) -> dict[str, bytes]:
        """Give all shared values of a kind, by key.

        They are what workers agree on beside the jobs, as that a dependency is out of order; a kind has few.
        """
        ...

    def share(self, kind: str, key: str, value: bytes | None, was: bytes | None) -> bool:
        """Change a shared value if it is still what the caller has seen; answers whether it was.

        before: the value is `was`, None: there is none -> after: it is `value`, None: there is none. Kind and key are 1
        to 200 characters, a value is at most 64 KiB; it stays until it is changed.
        """
        ...

    # -- look ---------------------------------------------------------------------------------------------------------

    def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        """Give jobs in the order of their ids, None for each that is not known."""
        ...

    def log(self, id: JobId) -> dict[int, str]:
        """Give the log text of a job by attempt, oldest first."""
        ...

    def find(self, which: Filter) -> Page:
        """Give one page of the jobs that match."""
        ...

    def counts(self) -> list[Counts]:
        """Give the number of jobs by queue, task and state, as kept at write time."""
        ...

    def groups(self) -> list[Group]:
        """Give the groups of buried jobs by id; jobs that were buried without an error are in none."""
        ...

    def queues(self) -> list[QueueInfo]:
        """Give every queue that holds jobs or has a switch set, by name."""
        ...

    def workers(self) -> list[WorkerView]:
        """Give every worker whose lease is not void, by id."""
        ...

    def describe(self) -> EngineInfo:
        """Give what the store is and promises, from its live settings."""
        ...

    # -- steer --------------------------------------------------------------------------------------------------------

    def load(self, jobs: Sequence[Job]) -> list[Added | PenstockError]:
        """Store jobs as another store had them: for moving and restoring; each whole or not at all, outside bounds.

        before: ids unknown -> after: each job in its state, with its counters, claim number, history, times and result.
        Ready ones go to the ends of their lines, in the order in which they are given. A known id answers `existing`
        and changes nothing, whatever the content. What was loaded as ended does not count in the rate of its queue; its
        retention runs from when it ended. At most 1,000 jobs.

        An idempotency key is taken by every job, a unique key by one that would still hold it: until it has started by
        a job that was never claimed, until it has ended by one that waits, and of a window what its length leaves,
        counted from when the job was added. While another job holds a key the answer is `UniqueConflict` or
        `IdempotencyConflict`, whatever that other job is; but an ended job lets go of its window instead. A window that
        a deleted job of the same id left is that job's own.

        Raises:
            ValueError: a job is running, blocked, out of bounds, or its state and its times, result or error are at
                odds; nothing is stored.
            Unsupported: a job asks for a capability that the engine does not declare; nothing is stored.
        """
        ...

    def alter(self, ids: Sequence[JobId], alteration: Alteration) -> list[Altered]:
        """Change jobs by hand, in the order of the ids, from the states that the transition table allows.

        A job that is unknown or stands in another state is left alone and says why. At most 1,000 ids.
        """
        ...

    def alter_queue(
        self, name: str, *, paused: bool | None = None, max_jobs: int | None = None, unlimited: bool = False
    ) -> QueueInfo:
        """Set a queue's switches; None leaves one as it is, `unlimited` lifts the bound on jobs."""
        ...

    def drain(self, workers: Sequence[str]) -> list[str]:
        """Ask workers to finish what they have and end; answers the ids that were known."""
        ...

    def evict(self, workers: Sequence[str]) -> list[str]:
        """Void the leases of workers now, whether they hear of it or not; answers the ids that were known.

        before: workers with leases -> after: none; what they held is taken over as lost by the next `tend` of anyone,
        and what they still deliver is refused. A worker that is alive starts anew with processes of new names.
        """
        ...

    def close(self) -> None:
        """Let go of all connections; later calls open them again."""
        ...
