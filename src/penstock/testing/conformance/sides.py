"""The engine under test and the memory engine beside it, and how both tell what they did in the same words."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.engine import (
    Answer,
    Engine,
    Filter,
    QueueInfo,
    Renewed,
    Taken,
    Tended,
    Want,
)
from penstock.engines.open import open_engine
from penstock.model.errors import JobRefused, PenstockError, QueueFull
from penstock.model.job import (
    Change,
    Claim,
    Fence,
    JobId,
    ProcessId,
)
from penstock.testing.clock import TurnedClock
from penstock.testing.conformance.trial import EngineFactory

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
            "groups": [replace(group, sample=JobId("")) for group in engine.groups()],
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


def _id_of_taken(taken: Taken) -> str:
    return taken.claim.id
