"""Telling people of buried jobs: one thread beside the maintenance, in each worker, with no leader among them.

Who finds that there is news writes down that it is about to send it, sends it, and writes down that it was sent.
If it dies in between, the first of these holds for two minutes, and then another worker sends it. So nothing is lost,
and told twice is only what was sent by a worker that died before it could say so.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from penstock.alerts import (
    ALERTS,
    Alert,
    Telltale,
    after_failure,
    after_sending,
    begun,
    is_due,
    may_send,
    state_in,
    state_out,
    write_message,
)
from penstock.engine import Engine, Group
from penstock.engines.open import without_password
from penstock.model.errors import EngineError, EngineUnavailable
from penstock.model.states import State
from penstock.notifying import send
from penstock.remedies import JobGroup, describe
from penstock.worker.patience import Patience

__all__ = ["Teller", "Telling"]

log = logging.getLogger("penstock.worker")

#: How often is looked whether more jobs are buried, with jitter.
PERIOD_S = 5.0
#: Also without such a sign the groups are looked at: as many may have been buried as were kicked.
LOOK_AGAIN_S = 60.0
#: Where there are very many buried jobs, looking at their groups may take this share of the time.
_SHARE = 1 / 20
#: How often it is tried to write down what was sent, should another worker change it too, or the store not answer.
_TRIES = 6

Send = Callable[[str, str, str], str | None]


class Teller:
    """Finds what is to be told, and sends it.

    Args:
        worker: its id, for who wants to know who sends.
        send: takes URL, title and text, and gives why it could not be sent.
        now_ms: the time of day.
    """

    def __init__(
        self,
        engine: Engine,
        worker: str,
        send: Send = send,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._engine, self._worker, self._send, self._now_ms = engine, worker, send, now_ms
        self._buried: dict[tuple[str, str], int] | None = None
        self._groups: list[Group] = []
        self._known: dict[str, JobGroup] = {}
        self._next_look_s = self._stale_s = 0.0

    def look(self, alerts: Sequence[Alert]) -> None:
        """Tell what is to be told now.

        Raises:
            EngineError: the store cannot be used; nothing is lost.
        """
        self._look_at_groups()
        if not self._groups:
            return
        stored = self._engine.shared(ALERTS)
        for alert in alerts:
            self._consider(alert, stored.get(alert.id))

    def _look_at_groups(self) -> None:
        """Read the groups anew if the counts have changed, which is cheap to see, or after a while."""
        counts = self._engine.counts()
        buried = {(one.queue, one.task): one.states[State.BURIED] for one in counts if State.BURIED in one.states}
        now_s = time.monotonic()
        if (buried == self._buried and now_s < self._stale_s) or now_s < self._next_look_s:
            return
        self._groups = self._engine.groups() if buried else []
        took_s = time.monotonic() - now_s
        self._buried, self._stale_s = buried, now_s + LOOK_AGAIN_S
        self._next_look_s = now_s + took_s / _SHARE
        present = {group.id for group in self._groups}
        self._known = {id: known for id, known in self._known.items() if id in present}
        unknown = [group for group in self._groups if group.id not in self._known]
        self._known |= {group.id: group for group in describe(self._engine, unknown)}

    def _consider(self, alert: Alert, stored: bytes | None) -> None:
        state, now_ms = state_in(stored), self._now_ms()
        due = [
            group
            for group in self._groups
            if group.id in self._known and alert.concerns(self._known[group.id]) and is_due(alert, state, group, now_ms)
        ]
        if not due or not may_send(state, now_ms):
            return
        described = describe(self._engine, due)
        told_of = {group.id for group in described}
        due = [group for group in due if group.id in told_of]  # the others: was kicked or deleted what stood for them
        if not due:
            return
        sending = begun(alert, state, self._worker, now_ms)
        if not self._engine.share(ALERTS, alert.id, state_out(sending), stored):
            return  # another worker is about to send it
        title, text = write_message(described, without_password(self._engine.describe().url))
        error = self._send(alert.url, title, text)
        self._write_down(alert, sending, lambda known: self._after(alert, known, due, title, error))
        _log(alert, state, title, error)

    def _after(self, alert: Alert, known: Telltale, due: Sequence[Group], title: str, error: str | None) -> Telltale:
        if error is not None:
            return after_failure(known, error, self._now_ms())
        return after_sending(alert, known, due, self._groups, title, self._now_ms())

    def _write_down(self, alert: Alert, sending: Telltale, after: Callable[[Telltale], Telltale]) -> None:
        """Write down what became of a message, also if others have changed what is known meanwhile."""
        stored: bytes | None = state_out(sending)
        for tries in range(_TRIES):
            try:
                if self._engine.share(ALERTS, alert.id, state_out(after(state_in(stored))), stored):
                    return
                stored = self._engine.shared(ALERTS).get(alert.id)
            except EngineUnavailable:
                time.sleep(2.0**tries / 10)


def _log(alert: Alert, before: Telltale, title: str, error: str | None) -> None:
    """Log what was sent, and each cause of a failure once."""
    if error is None:
        again = f", after {before.failures} failed tries" if before.failures else ""
        log.info("alert %s was sent%s: %s", alert.label, again, title)
    elif not before.failures or error[: len(before.error)] != before.error:
        log.warning(
            "alert %s could not be sent and is tried again, less and less often; `penstock alerts` shows it: %s",
            alert.label,
            error,
        )


class Telling:
    """Looks every few seconds; whatever goes wrong does the worker no harm.

    Attributes:
        alerts: whom to tell; may be replaced when the application changes.
    """

    def __init__(
        self, open_engine: Callable[[], Engine], worker: str, alerts: Sequence[Alert], period_s: float = PERIOD_S
    ) -> None:
        self._open_engine, self._worker, self.alerts, self._period_s = open_engine, worker, alerts, period_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-telling", daemon=True)

    def begin(self) -> None:
        """Begin, as soon as there is anybody to tell."""
        if self.alerts and self._thread.ident is None:
            self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Look once more, and end; what is not sent in time, another worker sends."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        patience = Patience("what tells of buried jobs")
        is_last = False
        while not is_last:
            is_last = self._closing.is_set()
            try:
                with closing(self._open_engine()) as engine:
                    self._work(Teller(engine, self._worker), patience)
            except EngineError as error:
                patience.failed(error)
                self._closing.wait(max(self._period_s, patience.pause_s()))
            except Exception:  # a person may go without being told, the jobs must run
                log.exception("telling of buried jobs has failed; it is tried again")
                self._closing.wait(self._period_s)

    def _work(self, teller: Teller, patience: Patience) -> None:
        """Look again and again until the worker ends, and then once more."""
        is_last = False
        while not is_last:
            is_last = self._closing.is_set()
            teller.look(self.alerts)
            patience.answered()
            self._closing.wait(self._period_s * random.uniform(0.5, 1.0))
