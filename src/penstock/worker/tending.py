"""The maintenance of the store, done by every supervisor beside its processes: due jobs, deadlines, lapsed leases."""

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping

from penstock.engine import Engine, Subject, Tended
from penstock.model.errors import EngineBusy, EngineDown, EngineError, EngineUnavailable
from penstock.worker.heart import Heart, NothingLeft, StoreUnusable, Tell
from penstock.worker.lookout import Lookout, is_done, left_out, start_warnings, what_is_left
from penstock.worker.patience import Patience
from penstock.worker.tender import Tender

log = logging.getLogger("penstock.worker")

SHORTEST_PERIOD_S = 0.5
#: Least time between two looks at the store, whatever wakes it.
REST_S = 0.02
BURST_PERIOD_S = 0.1
#: Least time between two looks for a lease that lapses, should it be renewed late, or not be voidable yet.
LAPSE_REST_S = 0.2
#: Those who wait for the same lease to lapse look within this time of each other, and the first takes it over.
LAPSE_SPREAD_S = 0.1


class Tending:
    """One thread that tends the store: every tenth of a lease, and sooner when a job falls due or a lease lapses.

    Leases as long as its own, while they are renewed, end later than its next round, so that only the period counts.

    Args:
        burst: whether to tell when nothing is left to do.
        queues: those that count for a burst; None counts all.
        tasks: those that count for a burst, each with its queue; may be replaced when the application changes.
        app: where the tasks were found.
        more_to_come: whether jobs are on their way to the store, so that a burst does not end yet.
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
        tasks: Mapping[str, str] | None = None,
        app: str = "",
        more_to_come: Callable[[], bool] = lambda: False,
    ) -> None:
        self._open_engine, self._tender, self._heart, self._tell = open_engine, tender, heart, tell
        self._period_s = max(SHORTEST_PERIOD_S, lease_ms / 10_000)
        self.tasks = tasks or {}
        self._app, self._burst, self._queues = app, burst, queues
        self._more_to_come = more_to_come
        self._lookout = Lookout(queues)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-tending", daemon=True)

    @property
    def begun(self) -> bool:
        return self._thread.ident is not None

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Come to an end soon."""
        self._closing.set()

    def close(self, timeout_s: float) -> bool:
        """End and wait for it; say whether that was done in time."""
        self.end()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        patience = Patience("maintenance")
        try:
            engine = patience.insist(self._open_engine)
            self._greet(engine, patience)
            while not self._closing.is_set():
                self._once(engine, patience)
            engine.close()
        except EngineError as error:
            self._tell(StoreUnusable(str(error)))
        except Exception as error:  # a worker that does not tend its store would leave lost jobs lost
            log.exception("maintenance has failed; the worker gives its jobs back and ends with status 3")
            self._tell(StoreUnusable(f"maintenance failed: {error}"))

    def _greet(self, engine: Engine, patience: Patience) -> None:
        """Warn of what makes this worker useless; the store's part of that can wait if it does not answer."""
        try:
            known = [queue.name for queue in engine.queues()]
        except EngineUnavailable as error:
            patience.failed(error)
            return
        for warning in start_warnings(self._app, self.tasks, self._queues, known):
            log.warning("%s", warning)
        if (out := left_out(self.tasks, self._queues)) is not None:
            log.info("%s", out)

    def _once(self, engine: Engine, patience: Patience) -> None:
        try:
            tended = engine.tend(self._tender.id)
            self._tender.settle(engine, tended.taken)
            if self._burst:
                if not tended.more:
                    self._look_for_the_end(engine)
            elif self._lookout.is_due(time.monotonic()):
                for line in self._lookout.look(engine.workers(), engine.counts(), time.monotonic()):
                    log.warning("%s", line)
        except EngineUnavailable as error:
            patience.failed(error)
            if isinstance(error, EngineDown | EngineBusy):
                self._heart.begin_anew()
            self._closing.wait(patience.pause_s())
        else:
            patience.answered()
            if not tended.more:
                self._rest(engine, tended)

    def _rest(self, engine: Engine, tended: Tended) -> None:
        """Wait until something falls due or lapses; in slices, so that closing is not held up."""
        until = time.monotonic() + self._rest_s(tended)
        self._closing.wait(REST_S)
        while not self._closing.is_set() and (left_s := until - time.monotonic()) > 0:
            slice_s = min(left_s, SHORTEST_PERIOD_S)
            began = time.monotonic()
            engine.wait(Subject(due=True), 0, slice_s)
            if time.monotonic() - began < slice_s * 0.95:
                return

    def _rest_s(self, tended: Tended) -> float:
        wait_s = BURST_PERIOD_S if self._burst else self._period_s * random.uniform(0.8, 1.2)
        if tended.next_ms is not None:
            wait_s = min(wait_s, tended.next_ms / 1000)
        if tended.lapse_ms is not None:
            wait_s = min(wait_s, max(tended.lapse_ms / 1000, LAPSE_REST_S) + random.uniform(0, LAPSE_SPREAD_S))
        return max(wait_s, REST_S)

    def _look_for_the_end(self, engine: Engine) -> None:
        if self._more_to_come():
            return  # asked before the store is looked at, where what was to come would be by now
        counts, queues = engine.counts(), engine.queues()
        if is_done(counts, queues, self.tasks, self._queues):
            self._tell(NothingLeft(what_is_left(counts, queues, self.tasks, self._queues)))
