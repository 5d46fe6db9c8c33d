"""What a history is made of: acts on a store, each with the time between which it took effect.

Times are ns of CLOCK_MONOTONIC, which all processes of one machine share: what returned before another act was called
came before it.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from penstock.model.job import NO_COUNTERS, Counters, Fence, JobId
from penstock.model.states import Cause, State

#: When an act ends of which nobody knows whether it took effect: it may still do so.
NEVER = 2**63 - 1

Outcome = Literal["ok", "fail", "unknown"]


class Add(Struct, frozen=True, gc=False, tag="add", omit_defaults=True):
    """One job of a request.

    Attributes:
        request: the first job of its request, which is stored whole or not at all.
        key, until, clash: of its unique key.
        once: its idempotency key.
        told: the job that the store named in answer; another one if that stands in for it, or was in the way.
    """

    job: JobId
    request: JobId
    queue: str = "default"
    key: str = ""
    until: str = ""
    clash: str = ""
    once: str = ""
    expires: bool = False
    told: str = ""


class Claimed(Struct, frozen=True, gc=False, tag="claim", omit_defaults=True):
    """A claim that was given out, with what the job had been through and what it may go through."""

    job: JobId
    fence: Fence
    counters: Counters = NO_COUNTERS
    max_attempts: int = 1
    max_crashes: int = 0
    stage: int = 0
    cancel_requested: bool = False


class Taken(Struct, frozen=True, gc=False, tag="take", omit_defaults=True):
    """A claim that was taken over, with its new fence."""

    job: JobId
    fence: Fence
    previous: str
    fate: str
    counters: Counters = NO_COUNTERS
    max_attempts: int = 1
    max_crashes: int = 0
    stage: int = 0
    cancel_requested: bool = False


class Changed(Struct, frozen=True, gc=False, tag="change", omit_defaults=True):
    """How an attempt ended; `result` is what it gave."""

    job: JobId
    fence: Fence
    cause: Cause
    next: State
    counters: Counters = NO_COUNTERS
    result: str = ""
    error: str = ""


class Altered(Struct, frozen=True, gc=False, tag="alter", omit_defaults=True):
    """What an operator did; the state before and after is known from the answer."""

    job: JobId
    how: str
    before: State | None = None
    after: State | None = None


class Began(Struct, frozen=True, gc=False, tag="begin", omit_defaults=True):
    """The ledger was asked for a side effect; `value` is what it had."""

    job: JobId
    fence: Fence
    scope: str
    key: str
    first: bool = False
    value: str | None = None


class Recorded(Struct, frozen=True, gc=False, tag="record", omit_defaults=True):
    """The ledger was told what a side effect gave; None takes back that it was begun."""

    job: JobId
    fence: Fence
    scope: str
    key: str
    value: str | None = None


class Noted(Struct, frozen=True, gc=False, tag="note"):
    """Progress or log text of a running job."""

    job: JobId
    fence: Fence


class Bore(Struct, frozen=True, gc=False, tag="bear"):
    """Jobs were added in the name of a running job."""

    job: JobId
    fence: Fence


class Did(Struct, frozen=True, gc=False, tag="do"):
    """A side effect happened in the world; `once` says that it must not happen again, whatever becomes of the job."""

    job: JobId
    fence: Fence
    scope: str
    key: str
    once: bool = False


class Leased(Struct, frozen=True, gc=False, tag="lease"):
    """A lease was given or renewed; `ms` is its length, 0 where it was said before."""

    process: str
    ms: int = 0


class Voided(Struct, frozen=True, gc=False, tag="void"):
    """A process was told that its lease is void."""

    process: str


class Evicted(Struct, frozen=True, gc=False, tag="evict"):
    """An operator voided the leases of a worker."""

    worker: str


class Dead(Struct, frozen=True, gc=False, tag="dead"):
    """A process was reported dead."""

    process: str


Grant = Claimed | Taken

#: What brings a job back from a final state.
RETURNS = ("kick", "edit", "upgrade")
Act = (
    Add | Claimed | Taken | Changed | Altered | Began | Recorded | Noted | Bore | Did | Leased | Voided | Dead | Evicted
)


class Op(Struct, frozen=True, gc=False, omit_defaults=True):
    """One act, by whom, and whether it took effect between `t0` and `t1`."""

    t0: int
    t1: int
    process: str
    outcome: Outcome
    act: Act

    @property
    def accepted(self) -> bool:
        return self.outcome == "ok"

    @property
    def possible(self) -> bool:
        return self.outcome != "fail"

    @property
    def fence(self) -> Fence:
        """The claim in whose name it was done, or that it gave out."""
        return self.act.fence  # type: ignore[union-attr]  # whoever asks knows that the act has one

    def before(self, other: "Op") -> bool:
        """Say whether it surely took effect before the other one."""
        return self.t1 < other.t0

    def __str__(self) -> str:
        until = "?" if self.t1 == NEVER else f"{self.t1 / 1e9:.6f}"
        return f"{self.t0 / 1e9:.6f}..{until} {self.process[:12]} {self.outcome} {self.act}"


class Stored(Struct, frozen=True, gc=False, omit_defaults=True):
    """A job as the store has it when all is over."""

    job: JobId
    state: State
    claim_number: int = 0
    counters: Counters = NO_COUNTERS
    result: str = ""
    error: str = ""
    once: str = ""
    key: str = ""
    queue: str = "default"


class Final(Struct, frozen=True, omit_defaults=True):
    """What a store shows when all is over.

    Attributes:
        counted, recounted: jobs by queue, task and state, as the store kept count and as they are.
        held: claims that somebody holds.
        bounds: most unfinished jobs of each queue that has a bound.
    """

    jobs: dict[JobId, Stored]
    counted: dict[str, int]
    recounted: dict[str, int]
    held: int = 0
    bounds: dict[str, int] = {}


class Life(Struct):
    """All that happened to one job, each kind in the order in which it was called."""

    job: JobId
    adds: list[Op]
    grants: list[Op]
    changes: list[Op]
    alters: list[Op]
    others: list[Op]

    @property
    def deleted(self) -> bool:
        """Whether it may have been forgotten by order."""
        return any(op.possible and op.act.how == "delete" for op in self.alters)

    def returns(self, after: int, until: int = NEVER) -> bool:
        """Say whether it may have been brought back from a final state in this time."""
        return any(op.possible and op.act.how in RETURNS and op.t1 > after and op.t0 < until for op in self.alters)

    def endings(self) -> list[Op]:
        """Give the acts that surely brought it to a final state."""
        changes = [op for op in self.changes if op.accepted and op.act.next.is_final]
        return sorted([*changes, *(op for op in self.alters if op.accepted and _ends(op.act))], key=lambda op: op.t0)

    def fenced(self) -> Iterator[Op]:
        """Give what was written in the name of a claim."""
        yield from self.changes
        yield from (op for op in self.others if not isinstance(op.act, Did))


def _ends(act: Altered) -> bool:
    return act.after is not None and act.after.is_final and not (act.before is not None and act.before.is_final)


class History:
    """All that happened, by job and by key.

    Attributes:
        lives: by job.
        keys: what was asked for under each unique key.
        leases: what concerns processes and not jobs.
        jumps: when the clock of the store was set, or its machine started anew.
    """

    def __init__(self, ops: Iterable[Op], final: Final, jumps: Iterable[int] = ()) -> None:
        self.ops, self.final, self.jumps = sorted(ops, key=lambda op: op.t0), final, sorted(jumps)
        self.lives: dict[JobId, Life] = {}
        self.keys: dict[str, list[Op]] = {}
        self.leases: list[Op] = []
        for op in self.ops:
            self._sort(op)

    def _sort(self, op: Op) -> None:
        act = op.act
        if isinstance(act, Leased | Voided | Dead | Evicted):
            self.leases.append(op)
            return
        life = self.lives.get(act.job)
        if life is None:
            life = self.lives[act.job] = Life(act.job, [], [], [], [], [])
        match act:
            case Add():
                life.adds.append(op)
                if act.key:
                    self.keys.setdefault(act.key, []).append(op)
            case Claimed() | Taken():
                life.grants.append(op)
            case Changed():
                life.changes.append(op)
            case Altered():
                life.alters.append(op)
            case _:
                life.others.append(op)
