"""Waits for news of the store beside the pump, which has outcomes to wait for at the same time."""

import random
import threading
import time
from collections.abc import Callable

from penstock.engine import Engine, Subject
from penstock.model.errors import EngineError, EngineUnavailable
from penstock.model.job import ProcessId

WAIT_S = 1.0


class Listener:
    """One thread with at most one outstanding `wait`; tells the pump when it returned before its time.

    Missed calls are legal, so the pump asks the store every few seconds whatever happens here.
    """

    def __init__(self, engine: Engine, process: ProcessId, queues: tuple[str, ...], news: Callable[[], None]) -> None:
        self._engine, self._process, self._queues, self._news = engine, process, queues, news
        self._changed = threading.Condition()
        self._mark: int | None = None
        self._closed = False

    def begin(self) -> None:
        threading.Thread(target=self.run, name="penstock-listener", daemon=True).start()

    def arm(self, mark: int) -> None:
        """Listen for what comes after `mark` from now on."""
        with self._changed:
            self._mark = mark
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def run(self) -> None:
        subject = Subject(queues=self._queues, process=self._process)
        while (mark := self._next()) is not None:
            timeout_s = WAIT_S * random.uniform(0.8, 1.2)
            began = time.monotonic()
            try:
                self._engine.wait(subject, mark, timeout_s)
            except EngineUnavailable:  # the pump meets the same fault and reports it
                continue
            except EngineError:  # and this one ends the process
                return
            if time.monotonic() - began < timeout_s * 0.95:
                self._tell(mark)

    def _next(self) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._mark is not None)
            return None if self._closed else self._mark

    def _tell(self, heard: int) -> None:
        """Pass news on and rest until the pump has looked; if it has looked meanwhile, they are old."""
        with self._changed:
            if self._mark != heard:
                return
            self._mark = None
        self._news()
