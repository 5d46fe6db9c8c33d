"""The values that cross every boundary: what is asked of the store, what it hands out, what comes back.

Those of which each job has one are not looked at by the garbage collector: frozen values can hold no cycle.
"""

import re
from typing import Literal, NewType

from msgspec import Struct
from msgspec.structs import replace

from penstock.model.retry import DEFAULT_POLICY, Policy
from penstock.model.states import Cause, State

JobId = NewType("JobId", str)
ProcessId = NewType("ProcessId", str)

_FENCE = re.compile(r"(\d{1,19})\.([0-9a-f]{16})", re.ASCII)

LOWEST_PRIORITY, HIGHEST_PRIORITY = -100, 100

#: A regular expression for the names of queues, and the same in words.
QUEUE_NAME = r"[A-Za-z0-9_.-]{1,128}"
QUEUE_NAME_IN_WORDS = "1 to 128 of the characters A-Z a-z 0-9 _ . -"


class Fence(Struct, frozen=True, gc=False, order=True):
    """What proves a claim: its number, which only rises, and a 64-bit token drawn at random.

    A number alone is issued twice after a restore; a token alone says nothing of order.
    Every write of a running job carries both, and the store compares both.
    """

    number: int
    token: int

    def __str__(self) -> str:
        return f"{self.number}.{self.token & 0xFFFF_FFFF_FFFF_FFFF:016x}"


def read_fence(text: str) -> Fence:
    """Read a fence from the text that `str` makes of it; tokens are signed 64-bit inside.

    Raises:
        ValueError: the text is no fence.
    """
    found = _FENCE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a fence; it is a number and 16 hexadecimal digits, as in {Fence(1, 10)}.")
    unsigned = int(found[2], 16)
    return Fence(int(found[1]), unsigned - (1 << 64) if unsigned >> 63 else unsigned)


class Counters(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a job has been through; each count has its own remedy.

    Attributes:
        attempts: attempts of this stage that started and were not given back.
        failures: attempts that raised or ran out of time; they use up `max_attempts`.
        crashes: attempts that took their process down; they use up `max_crashes`.
        interruptions: attempts given back by a worker that had to stop; free of charge.
        losses: attempts whose host vanished; the first one is free.
        snoozes: times the task put itself off; free of charge.
        suspect: a host was lost while it ran, so it runs alone from now on.
    """

    attempts: int = 0
    failures: int = 0
    crashes: int = 0
    interruptions: int = 0
    losses: int = 0
    snoozes: int = 0
    suspect: bool = False

    @property
    def runs_alone(self) -> bool:
        """Whether the job must run in a child process of its own, whatever its runner."""
        return self.suspect or self.crashes > 0

    def forgiven(self) -> "Counters":
        """Give new chances; what a job has been through is kept where it costs nothing."""
        return replace(self, attempts=0, failures=0, crashes=0, suspect=False)


NO_COUNTERS = Counters()
#: In place of counters that can no longer be read.
UNREADABLE_COUNTERS = Counters(suspect=True)


class Unique(Struct, frozen=True, omit_defaults=True):
    """A key that at most one live job holds.

    Attributes:
        key: the key; the client puts the task's name in front of it.
        until: freed when the job has `started`, has `ended` (buried counts as ended), or after a `window`.
        window_ms: length of the window from the moment the job is added, however the job fares.
        clash: what adding does while the key is held: `keep` answers with the holder, `replace` cancels a holder
            that still waits and takes its place (a running holder is kept), `refuse` raises `UniqueConflict`.
    """

    key: str
    until: Literal["started", "ended", "window"] = "ended"
    window_ms: int = 0
    clash: Literal["keep", "replace", "refuse"] = "keep"


class Needs(Struct, frozen=True, omit_defaults=True):
    """What a worker must offer to run a job: capability tags, bytes of memory, CPUs."""

    tags: tuple[str, ...] = ()
    memory: int = 0
    cpu: float = 0.0


class Tick(Struct, frozen=True):
    """Which firing of a schedule made a job: its name and nominal time (ms since the epoch)."""

    schedule: str
    nominal_ms: int


class Avoid(Struct, frozen=True):
    """A worker that was unfit for a job, which therefore passes it by until a moment, and its machine until another.

    Attributes:
        boot: which run of the machine it was on.
        until_ms, boot_until_ms: ms since the epoch, by the store's clock.
    """

    worker: str
    boot: str
    until_ms: int
    boot_until_ms: int

    def shuns(self, worker: str, boot: str, now_ms: int) -> bool:
        """Say whether the job passes this worker by now."""
        if worker == self.worker:
            return now_ms < self.until_ms
        return boot == self.boot and now_ms < self.boot_until_ms


class Home(Struct, frozen=True):
    """The task that a job was enqueued for, and the queue in which it stood, while a fallback has it."""

    task: str
    queue: str


class Former(Struct, frozen=True, omit_defaults=True):
    """What a job was before a person edited it; what the edit left alone is None or empty.

    Attributes:
        at_ms: when it was edited.
        by: who did it.
        envelope: its envelope before, empty where too many bytes of envelopes were there to keep.
        size: bytes of its envelope before, 0 if that was left alone.
    """

    at_ms: int
    by: str
    envelope: str = ""
    size: int = 0
    queue: str | None = None
    priority: int | None = None
    tags: tuple[str, ...] | None = None


class Details(Struct, frozen=True, omit_defaults=True):
    """What the store keeps of a job but seldom looks at.

    Attributes:
        edits: what it was before each time that a person edited it, the last 20, oldest first.
        avoid: the workers that were unfit for it, the last ones, oldest first.
        home: set from the moment on in which a fallback took the job over.
    """

    tags: tuple[str, ...] = ()
    unique: Unique | None = None
    idempotency_key: str | None = None
    order_key: str | None = None
    limit_keys: tuple[str, ...] = ()
    needs: Needs | None = None
    parents: tuple[JobId, ...] = ()
    flow: str | None = None
    tick: Tick | None = None
    topic: str | None = None
    parent_job: JobId | None = None
    edits: tuple[Former, ...] = ()
    avoid: tuple[Avoid, ...] = ()
    home: Home | None = None


NO_DETAILS = Details()

#: In place of details that can no longer be read.
UNREADABLE_DETAILS = Details(tags=("unreadable",))


class NewJob(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A job as the client asks for it.

    Attributes:
        id: a UUIDv7 in its canonical text, made by the client; adding a known id again answers `existing`.
        envelope: what is opaque to the store (see `codec`); `crc` is its CRC-32, None from a foreign writer.
        priority: -100 to 100, higher runs first.
        delay_ms: how long it waits first, counted by the store's clock.
        run_at_ms: when it becomes ready, ms since the epoch; not together with a delay.
        expires_ms: when it expires unless it has started by then, ms since the epoch.
        expires_in_ms: the same as a duration, counted by the store's clock.
        fair_key: the tenant in whose turn it runs.
    """

    id: JobId
    task: str
    envelope: bytes
    crc: int | None = None
    queue: str = "default"
    priority: int = 0
    delay_ms: int = 0
    run_at_ms: int | None = None
    expires_ms: int | None = None
    expires_in_ms: int | None = None
    fair_key: str = ""
    policy: Policy = DEFAULT_POLICY
    details: Details = NO_DETAILS


class Evidence(Struct, frozen=True, omit_defaults=True):
    """What was found where an attempt took its process down, or hung until that was killed.

    Attributes:
        status: exit status of the process, or the negative number of the signal that killed it.
        cause: what it likely was, in words.
        peak_bytes: the most memory that the process was seen to have resident, 0 if nobody looked in time.
        ran_us: how long the attempt had run, in microseconds.
        stacks: where each thread stood, the job's own first, with the most recent call first; at most 16 KiB.
        log: the last lines that the job had logged or printed, at most 20 lines and 4 KiB.
    """

    status: int
    cause: str = ""
    peak_bytes: int = 0
    ran_us: int = 0
    stacks: str = ""
    log: str = ""


class ErrorInfo(Struct, frozen=True, omit_defaults=True):
    """One failed attempt, as text of bounded length; never rebuilt into an exception.

    Attributes:
        kind: the outcome: `failed`, `timed out`, `crashed`, `lost`, `cancelled` or `released`.
        type: qualified name of the exception's class, empty if there was none.
        attempt: which attempt of its stage, from 1.
        at_ms: when the store learned of it; the engine fills it in.
        worker: the process that ran it.
        failure: whose fault it was, where the kind does not say it; see `failure_class`.
        where: the innermost function of the application in which it was raised, as `shop.jobs:send`; not known of all.
        group: which group of buried jobs its job belongs to, set where it buried the job; see `groups.group_of`.
        evidence: what was found if it took its process down or hung.
    """

    kind: str
    type: str = ""
    message: str = ""
    traceback: str = ""
    attempt: int = 0
    at_ms: int = 0
    worker: str = ""
    failure: str = ""
    where: str = ""
    group: str = ""
    evidence: Evidence | None = None

    @property
    def failure_class(self) -> str:
        """Whose fault it was: `job`, `timeout`, `host`, `dependency:NAME`, `network`, `crash` or `lost`."""
        return self.failure or _FAILURES.get(self.kind, "job")

    def __str__(self) -> str:
        name = self.type.removeprefix("builtins.") or self.kind
        return f"{name}: {self.message}" if self.message else name


#: Classes of failure that the kind of outcome tells.
_FAILURES = {"timed out": "timeout", "crashed": "crash", "lost": "lost"}


class Progress(Struct, frozen=True, omit_defaults=True):
    """How far a running job has come: `done` of `total` (None if unknown), with a short note."""

    done: float
    total: float | None = None
    note: str = ""


class Claim(Struct, frozen=True, gc=False, kw_only=True):
    """What a process holds on a job: the fence, and all it needs to run and settle it.

    Attributes:
        attempt: which attempt of this stage this one is, from 1.
        inputs: results of its parents, in their order.
        enqueued_ms: when it was accepted, by the store's clock.
        is_readable: whether all that was stored of the job could be read; else it is to be buried, not run.
    """

    id: JobId
    fence: Fence
    task: str
    queue: str
    envelope: bytes
    crc: int | None
    policy: Policy
    counters: Counters = NO_COUNTERS
    details: Details = NO_DETAILS
    priority: int = 0
    stage: int = 0
    enqueued_ms: int = 0
    cancel_requested: bool = False
    inputs: tuple[bytes, ...] = ()

    @property
    def is_readable(self) -> bool:
        return self.details is not UNREADABLE_DETAILS and self.counters is not UNREADABLE_COUNTERS

    @property
    def terms(self) -> Policy:
        """What holds for the task that has the job now: the policy of its stage."""
        return self.policy.at(self.stage)

    @property
    def attempt(self) -> int:
        return self.counters.attempts + 1


class LedgerEntry(Struct, frozen=True, omit_defaults=True):
    """A side effect that was recorded: its key within its scope and the value it gave."""

    scope: str
    key: str
    value: bytes


class Move(Struct, frozen=True):
    """Where a job goes on from now: under which task, in which queue, at which stage, and with which details."""

    task: str
    queue: str
    stage: int
    details: Details


class Change(Struct, frozen=True, gc=False, kw_only=True):
    """What the policy makes of an outcome: the next state, and everything written with it.

    Attributes:
        after_ms: how long it waits before it is ready again; only with the next state `scheduled`.
        counters: their new values.
        result: JSON, only with the next state `succeeded`.
        degraded: the fallback task that produced the result.
        ran_us: how long the attempt ran, in microseconds.
        follow_ups: jobs added in the same step, outside every bound.
        move: set where the job goes on elsewhere; only with a next state in which it waits.
    """

    id: JobId
    fence: Fence
    cause: Cause
    next: State
    after_ms: int = 0
    counters: Counters = NO_COUNTERS
    result: bytes | None = None
    error: ErrorInfo | None = None
    degraded: str | None = None
    ran_us: int = 0
    follow_ups: tuple[NewJob, ...] = ()
    ledger: tuple[LedgerEntry, ...] = ()
    move: Move | None = None


class Job(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that the store knows of one job. Times are ms since the epoch by the store's clock.

    Attributes:
        claim_number: how many times it was claimed; never reset.
        due_ms: when a scheduled job becomes ready.
        ran_us: how long its last attempt ran, in microseconds.
        error: its last failed attempt; `history` has the last 20, oldest first.
        process: the process that runs it now or ran it last.
    """

    id: JobId
    state: State
    task: str
    queue: str
    envelope: bytes
    crc: int | None = None
    priority: int = 0
    fair_key: str = ""
    policy: Policy = DEFAULT_POLICY
    details: Details = NO_DETAILS
    counters: Counters = NO_COUNTERS
    claim_number: int = 0
    stage: int = 0
    cancel_requested: bool = False
    created_ms: int = 0
    due_ms: int | None = None
    expires_ms: int | None = None
    claimed_ms: int | None = None
    ended_ms: int | None = None
    ran_us: int = 0
    error: ErrorInfo | None = None
    history: tuple[ErrorInfo, ...] = ()
    progress: Progress | None = None
    result: bytes | None = None
    degraded: str | None = None
    process: ProcessId | None = None

    @property
    def terms(self) -> Policy:
        """What holds for the task that has the job now: the policy of its stage."""
        return self.policy.at(self.stage)

    @property
    def group(self) -> str:
        """Which group of buried jobs it belongs to, empty if it is not buried."""
        return self.error.group if self.state is State.BURIED and self.error is not None else ""

    @property
    def origin(self) -> str:
        """The task that it was enqueued for, also while a fallback has it."""
        return origin_of(self.details, self.task)


def origin_of(details: Details, task: str) -> str:
    """Give the task that a job was enqueued for, from its details and the task that has it now."""
    return task if details.home is None else details.home.task


HISTORY_KEPT = 20
