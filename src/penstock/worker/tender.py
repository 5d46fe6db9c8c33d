"""The supervisor's own identity in the store: it takes claims over from processes that ended, and settles them."""

import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from penstock.engine import MOST_AT_ONCE, Answer, Engine, Taken
from penstock.model.errors import EngineUnavailable, LeaseLost
from penstock.model.job import Change, Claim, ProcessId
from penstock.model.outcome import Outcome
from penstock.model.settle import settle
from penstock.worker.journal import Journal
from penstock.worker.patience import Patience
from penstock.worker.verdict import Verdict, outcome_of

log = logging.getLogger("penstock.worker")

#: How many verdicts on ended processes are remembered, for claims that are taken over later.
VERDICTS_KEPT = 1000
#: How many of them, the newest, with what was found where the process ended, which may be 100 KB and more.
SCENES_KEPT = 300


def new_process_id() -> ProcessId:
    return ProcessId(uuid.uuid4().hex)


class Tender:
    """A process id without jobs of its own. Heartbeat and maintenance share it, and its beats."""

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self.id = new_process_id()
        self._wanted = wanted
        self._beat = 0
        self._lock = threading.Lock()
        self._verdicts: dict[ProcessId, Verdict] = {}
        self._scenes: deque[ProcessId] = deque()

    def renew_identity(self) -> None:
        """Begin again after the lease was lost; what was taken over has been handed on."""
        with self._lock:
            self.id, self._beat = new_process_id(), 0

    def judge(self, process: ProcessId, verdict: Verdict) -> None:
        """Remember why a process ended until its claims have been taken over."""
        self._verdicts[process] = verdict
        self._scenes.append(process)
        if len(self._scenes) > SCENES_KEPT:
            oldest = self._scenes.popleft()
            self._verdicts[oldest] = replace(self._verdicts[oldest], scene=None)
        while len(self._verdicts) > VERDICTS_KEPT:
            self._verdicts.pop(next(iter(self._verdicts)))

    def settle(self, engine: Engine, taken: Sequence[Taken]) -> None:
        """Settle what was taken over, each by the verdict on its process and the policy stored with it."""
        for start in range(0, len(taken), MOST_AT_ONCE):
            self._deliver(engine, [self._settled(one) for one in taken[start : start + MOST_AT_ONCE]])

    def _settled(self, taken: Taken) -> tuple[Claim, Outcome, Change]:
        outcome = outcome_of(taken, self._verdicts)
        return taken.claim, outcome, settle(taken.claim, outcome, random.random())

    def _deliver(self, engine: Engine, settled: Sequence[tuple[Claim, Outcome, Change]]) -> None:
        changes = [change for _, _, change in settled]
        with self._lock:
            self._beat += 1
            answer = self._insist(engine, changes)
        if answer is not None:
            Journal().write(settled, answer)

    def _insist(self, engine: Engine, changes: Sequence[Change]) -> Answer | None:
        """Repeat the same beat until the store answers; None if the lease is gone, or nobody waits for it any more."""
        patience = Patience("the supervisor")
        while self._wanted():
            try:
                answer = engine.exchange(self.id, self._beat, changes, None)
            except EngineUnavailable as error:
                patience.failed(error)
                time.sleep(patience.pause_s())
            except LeaseLost:
                log.warning(
                    "the supervisor's own lease was voided by another worker, which now has the %d jobs that it had "
                    "taken over from ended processes: %s",
                    len(changes),
                    ", ".join(change.id for change in changes[:10]),
                )
                return None
            else:
                patience.answered()
                return answer
        return None
