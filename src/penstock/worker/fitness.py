"""The health of a process: the application's own checks, asked at the start and every so often after."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from penstock.fitness import Check
from penstock.model.durations import spell
from penstock.worker.execution import LONGEST_SHOWN, bounded, message_of

__all__ = ["Fitness"]

#: For how many periods a process that a job called unfit claims nothing at least, though its checks may pass.
REST_PERIODS = 2

_UNASKED = "its health checks have not answered yet"


class Fitness:
    """Asks the checks in a thread of its own, and tells when what they say has changed.

    With checks, a process is unfit until they have passed for the first time. One that does not answer in time is as
    good as one that fails; the others are asked again when it has answered.

    Args:
        checks: by name.
        tell: takes why this process is unfit, None when it is fit; called from any thread.
        others: says whether others call it unfit; asked last, and before it has answered the process is fit.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        period_s: float,
        tell: Callable[[str | None], None],
        others: Callable[[], str | None] | None = None,
    ) -> None:
        self._checks, self._period_s, self._tell, self._others = dict(checks), period_s, tell, others
        self._lock = threading.Lock()
        self._verdict: str | None = _UNASKED if self._checks else None
        self._asked: tuple[str, float] | None = None
        self._not_before = 0.0
        self._called = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None

    @property
    def is_fit(self) -> bool:
        return self._verdict is None

    def begin(self) -> None:
        """Ask from now on; with nobody to ask, from when a job calls this process unfit."""
        if self._checks or self._others is not None:
            self._called.set()
            self._start()

    def end(self) -> None:
        """Ask no more."""
        self._ended = True
        self._called.set()

    def call_unfit(self, reason: str) -> None:
        """Take the word of a job for it; the checks say when it is over, but not before two periods have passed."""
        self._not_before = time.monotonic() + REST_PERIODS * self._period_s
        self._judge(reason)
        self._start()

    def look(self) -> None:
        """Notice a check that does not answer; to be called now and then by another thread."""
        asked = self._asked
        if asked is not None:
            name, since = asked
            timeout_s = self._checks[name].timeout_s
            if time.monotonic() - since > timeout_s:
                self._judge(f"health check {name!r} has not answered within {spell(timeout_s)}")

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="penstock-fitness", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            self._called.wait(self._pause_s())
            self._called.clear()
            reason = self._ask_all()
            if reason is not None or time.monotonic() >= self._not_before:
                self._judge(reason)

    def _pause_s(self) -> float:
        left_s = self._not_before - time.monotonic()
        return min(self._period_s, left_s) if left_s > 0 else self._period_s

    def _ask_all(self) -> str | None:
        for name, check in self._checks.items():
            self._asked = (name, time.monotonic())
            reason = _ask(name, check.function)
            self._asked = None
            if reason is not None:
                return reason
        return None if self._others is None else self._others()

    def _judge(self, reason: str | None) -> None:
        with self._lock:
            before, self._verdict = self._verdict, reason
        if before is _UNASKED or (reason is None) != (before is None):
            self._tell(reason)


def _ask(name: str, function: Callable[[], Any]) -> str | None:
    """Give why a check fails, None if it passes: it raises, or gives False, or a text that says why."""
    try:
        answer = function()
    except Exception as error:  # noqa: BLE001 - a check is the application's own code
        return f"health check {name!r} failed: {type(error).__name__}: {message_of(error)}"
    if answer is None or answer is True:
        return None
    why = "" if answer is False else f": {bounded(str(answer), LONGEST_SHOWN)}"
    return f"health check {name!r} failed{why}"
