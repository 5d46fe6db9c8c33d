"""A worker of one process, driven by hand: it claims jobs of a store and ends them as told."""

from collections.abc import Sequence
from itertools import count

from penstock.engine import Engine, Want, WorkerInfo
from penstock.model.job import Claim, ErrorInfo, ProcessId
from penstock.model.outcome import Ending, Outcome
from penstock.model.settle import settle

_numbers = count(1)


class Hand:
    def __init__(self, engine: Engine, tasks: Sequence[str]) -> None:
        self._engine = engine
        self._process = ProcessId(f"hand-{next(_numbers)}")
        self._beat = 0
        self._want = Want(tasks=dict.fromkeys(tasks, "thread"), free={"thread": 1000, "process": 1000})
        engine.enrol(WorkerInfo(id=f"worker-of-{self._process}", tasks=tuple(tasks)), [self._process])

    def claim(self) -> tuple[Claim, ...]:
        self._beat += 1
        return self._engine.exchange(self._process, self._beat, (), self._want).claims

    def end(self, claim: Claim, outcome: Outcome) -> None:
        self._beat += 1
        self._engine.exchange(self._process, self._beat, [settle(claim, outcome, 0.5)], None)

    def succeed(self, claim: Claim, result: bytes) -> None:
        self.end(claim, Outcome(ending=Ending.SUCCEEDED, result=result))

    def fail(self, claim: Claim, message: str) -> None:
        error = ErrorInfo(kind="failed", type="builtins.ValueError", message=message)
        self.end(claim, Outcome(ending=Ending.FAILED, error=error))

    def bury(self, claim: Claim, message: str) -> None:
        error = ErrorInfo(kind="failed", type="builtins.ValueError", message=message, traceback="Traceback ...")
        self.end(claim, Outcome(ending=Ending.FAILED, error=error, verdict="bury"))
