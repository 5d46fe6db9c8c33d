"""The maintenance of the store, done by every supervisor beside its processes: due jobs, deadlines, lapsed leases."""

import logging
import random
import threading
import time
from collections.abc import Callable, Collection

from penstock.engine import Engine, Subject, Tended
from penstock.model.errors import EngineDown, EngineError, EngineUnavailable
from penstock.model.states import State
from penstock.worker.heart import Heart, NothingLeft, StoreUnusable, Tell
from penstock.worker.patience import Patience
from penstock.worker.tender import Tender

log = logging.getLogger("penstock.worker")

SHORTEST_PERIOD_S = 0.5
#: Least time between two looks at the store, whatever wakes it.
REST_S = 0.02
BURST_PERIOD_S = 0.1


class Tending:
    """One thread that tends the store: every tenth of a lease, and sooner when a job falls due.

    Args:
        burst: whether to tell when nothing is left to do.
        queues: those that count for a burst; None counts all.
        tasks: those that count for a burst; may be replaced when the application changes.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        tender: Tender,
        heart: Heart,
        tell: Tell,
        *,
        lease_ms: int,
        burst: bool = False,
        queues: Collection[str] | None = None,
        tasks: Collection[str] = (),
    ) -> None:
        self._open_engine, self._tender, self._heart, self._tell = open_engine, tender, heart, tell
        self._period_s = max(SHORTEST_PERIOD_S, lease_ms / 10_000)
        self.tasks = tasks
        self._burst, self._queues = burst, queues
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-tending", daemon=True)

    @property
    def begun(self) -> bool:
        return self._thread.ident is not None

    def begin(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float) -> bool:
        self._closing.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        patience = Patience("maintenance")
        try:
            engine = patience.insist(self._open_engine)
            while not self._closing.is_set():
                self._once(engine, patience)
            engine.close()
        except EngineError as error:
            self._tell(StoreUnusable(str(error)))
        except Exception as error:  # a worker that does not tend its store would leave lost jobs lost
            log.exception("maintenance has failed")
            self._tell(StoreUnusable(f"maintenance failed: {error}"))

    def _once(self, engine: Engine, patience: Patience) -> None:
        try:
            tended = engine.tend(self._tender.id)
            self._tender.settle(engine, tended.taken)
            if self._burst and not tended.more and self._nothing_left(engine):
                self._tell(NothingLeft())
        except EngineUnavailable as error:
            patience.failed(error)
            if isinstance(error, EngineDown):
                self._heart.begin_anew()
            self._closing.wait(patience.pause_s())
        else:
            patience.answered()
            if not tended.more:
                self._rest(engine, tended)

    def _rest(self, engine: Engine, tended: Tended) -> None:
        """Wait until something falls due; in slices, so that closing is not held up."""
        wait_s = BURST_PERIOD_S if self._burst else self._period_s * random.uniform(0.8, 1.2)
        if tended.next_ms is not None:
            wait_s = min(wait_s, tended.next_ms / 1000)
        until = time.monotonic() + max(wait_s, REST_S)
        self._closing.wait(REST_S)
        while not self._closing.is_set() and (left_s := until - time.monotonic()) > 0:
            slice_s = min(left_s, SHORTEST_PERIOD_S)
            began = time.monotonic()
            engine.wait(Subject(due=True), 0, slice_s)
            if time.monotonic() - began < slice_s * 0.95:
                return

    def _nothing_left(self, engine: Engine) -> bool:
        """Say whether none of this worker's jobs is ready or running; what waits in a paused queue does not count."""
        paused = {queue.name for queue in engine.queues() if queue.paused}
        for counts in engine.counts():
            ours = (self._queues is None or counts.queue in self._queues) and counts.task in self.tasks
            waiting = 0 if counts.queue in paused else counts.states.get(State.READY, 0)
            if ours and waiting + counts.states.get(State.RUNNING, 0):
                return False
        return True
