"""The heartbeat of a worker: one thread, on an engine of its own, that renews leases and reports the dead at once."""

import logging
import threading
import time
from collections.abc import Callable

from msgspec import Struct

from penstock.engine import Death, Engine, EngineInfo, Renewed, WorkerInfo
from penstock.model.errors import EngineBusy, EngineDown, EngineError, EngineUnavailable, LeaseLost
from penstock.model.job import ProcessId
from penstock.worker.patience import Patience
from penstock.worker.tender import Tender
from penstock.worker.verdict import Verdict

log = logging.getLogger("penstock.worker")


class Enrolled(Struct, frozen=True):
    """These processes have a lease and may begin; `store` is told the first time."""

    processes: tuple[ProcessId, ...]
    store: EngineInfo | None = None


class Voided(Struct, frozen=True):
    """The leases of these processes are gone."""

    processes: tuple[ProcessId, ...]


class DrainAsked(Struct, frozen=True):
    """Somebody asked this worker to finish what it has and end."""


class StoreUnusable(Struct, frozen=True):
    """The store cannot be used at all, and waiting will not mend it."""

    message: str


class NothingLeft(Struct, frozen=True):
    """No job is ready or running that this worker can run; `left` says so, and what is left."""

    left: str


News = Enrolled | Voided | DrainAsked | StoreUnusable | NothingLeft
Tell = Callable[[News], None]


class Heart:
    """Renews every third of a lease, and at once when there is something to report. Its methods return at once.

    Args:
        open_engine: called in the heart's own thread.
        tell: takes news for the supervisor; called in the heart's own thread.

    Attributes:
        renewed_at: when the leases were renewed last, in steady seconds.
        trying_since: since when it asks without an answer; None while no call is under way or has failed.
    """

    def __init__(self, open_engine: Callable[[], Engine], tender: Tender, info: WorkerInfo, tell: Tell) -> None:
        self._open_engine, self._tender, self._info, self._tell = open_engine, tender, info, tell
        self._changed = threading.Condition()
        self._to_enrol: list[ProcessId] = []
        self._leases: set[ProcessId] = set()
        self._deaths: list[Death] = []
        self._closing = False
        self._known = self._introduced = False
        self._due = 0.0
        self.renewed_at = time.monotonic()
        self.trying_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="penstock-heart", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def enrol(self, process: ProcessId, info: WorkerInfo | None = None) -> None:
        """Get a lease for a new process; `Enrolled` tells when it has one.

        Args:
            info: replaces what was known of the worker.
        """
        with self._changed:
            self._info = info or self._info
            self._to_enrol.append(process)
            self._changed.notify()

    def present(self, info: WorkerInfo) -> None:
        """Replace what is known of the worker."""
        with self._changed:
            self._info, self._known, self._due = info, False, 0.0
            self._changed.notify()

    def report(self, death: Death, verdict: Verdict) -> None:
        """Hand on what an ended process held."""
        self._tender.judge(death.process, verdict)
        with self._changed:
            if death.process in self._to_enrol:
                self._to_enrol.remove(death.process)
            self._leases.discard(death.process)
            self._deaths.append(death)
            self._changed.notify()

    def forsake(self, process: ProcessId) -> None:
        """Renew this lease no more."""
        with self._changed:
            self._leases.discard(process)

    def begin_anew(self) -> None:
        """Take a new identity and report the old one dead.

        When the reply to a call that takes claims over is lost, nobody knows which claims the tender holds, and its own
        lease would keep them for ever. The next tender takes them over from the old one.
        """
        with self._changed:
            self._deaths.append(Death(self._tender.id))
            self._tender.renew_identity()
            self._known = False
            self._changed.notify()

    def close(self, timeout_s: float) -> bool:
        """Report what is left to report, then give up the own lease; say whether that was done in time.

        Processes whose end was not reported count as gone before they began.
        """
        with self._changed:
            self._closing = True
            self._deaths.extend(Death(process) for process in self._leases)
            self._leases.clear()
            self._to_enrol.clear()
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        patience = Patience("the supervisor")
        try:
            engine = patience.insist(self._open_engine)
            while self._next(patience):
                self._try(engine, patience)
            engine.close()
        except EngineError as error:
            self._tell(StoreUnusable(str(error)))
        except Exception as error:  # a worker without a heart must not go on
            log.exception("the heartbeat has failed; the worker gives its jobs back and ends with status 3")
            self._tell(StoreUnusable(f"the heartbeat failed: {error}"))

    def _next(self, patience: Patience) -> bool:
        """Wait for the next beat; False once everything is reported and the worker ends."""
        with self._changed:
            if self._closing and not self._deaths and not self._known:
                return False
            pressing = self._closing or self._to_enrol or self._deaths
            if patience.failing:
                self._changed.wait(patience.pause_s())
            elif not pressing:
                self._changed.wait(max(0.0, self._due - time.monotonic()))
        return True

    def _try(self, engine: Engine, patience: Patience) -> None:
        self.trying_since = self.trying_since or time.monotonic()
        tender = self._tender.id
        try:
            self._enrol(engine)
            self._renew(engine)
        except EngineUnavailable as error:
            patience.failed(error)
            if isinstance(error, EngineDown | EngineBusy) and self._deaths:
                self.begin_anew()
            return
        except LeaseLost:
            if self._tender.id == tender:  # else maintenance began anew meanwhile, and nobody voided anything
                log.warning(
                    "the supervisor's own lease lapsed and was voided by another worker (was this machine asleep?); "
                    "it takes a new one and goes on"
                )
                self._tender.renew_identity()
            self._known = False
        else:
            patience.answered()
        self.trying_since = None

    def _enrol(self, engine: Engine) -> None:
        with self._changed:
            new = tuple(self._to_enrol)
            if not new and (self._known or not (self._leases or self._deaths)):
                return
        engine.enrol(self._info, (self._tender.id, *new))
        store = engine.describe() if new and not self._introduced else None  # if it fails, all is done again
        self._known = True
        with self._changed:
            self._to_enrol = [process for process in self._to_enrol if process not in new]
            if self._closing:
                self._deaths.extend(Death(process) for process in new)
            else:
                self._leases.update(process for process in new if not self._is_gone(process))
        if new:
            self._tell(Enrolled(new, store))
            self._introduced = True

    def _is_gone(self, process: ProcessId) -> bool:
        """Say whether a process ended while it was being enrolled."""
        return any(death.process == process for death in self._deaths)

    def _renew(self, engine: Engine) -> None:
        if not self._known:
            return
        with self._changed:
            deaths, leases, closing = list(self._deaths), tuple(self._leases), self._closing
        last = closing and not leases and not deaths
        began = time.monotonic()
        renewed = engine.renew(self._tender.id, leases, [Death(self._tender.id)] if last else deaths)
        self.renewed_at = began
        self._due = began + self._info.lease_ms / 3000
        with self._changed:
            del self._deaths[: len(deaths)]
            self._leases.difference_update(renewed.void)
        self._known = not last
        self._hear(engine, renewed)

    def _hear(self, engine: Engine, renewed: Renewed) -> None:
        if renewed.void:
            self._tell(Voided(renewed.void))
        if renewed.drain:
            self._tell(DrainAsked())
        self._tender.settle(engine, renewed.taken)
