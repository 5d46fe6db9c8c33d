"""How to go on asking a store that cannot answer: say it once for each cause, wait longer each time."""

import logging
import random
import time
from collections.abc import Callable

from penstock.engine import Engine
from penstock.model.errors import EngineReadOnly, EngineUnavailable

log = logging.getLogger("penstock.worker")

SHORTEST_S, LONGEST_S = 0.05, 2.0


class Patience:
    """Counts failures in a row and logs the first of each cause, and the recovery."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._failures = 0
        self._causes: set[str] = set()

    @property
    def failing(self) -> bool:
        return self._failures > 0

    def failed(self, error: Exception) -> None:
        self._failures += 1
        cause = f"{type(error).__name__}: {error}"
        if cause not in self._causes:
            self._causes.add(cause)
            log.warning("%s cannot reach the store and tries again, less and less often: %s", self._who, cause)

    def pause_s(self) -> float:
        """Give how long to wait before the next try, jittered between half and all of a doubling bound."""
        bound = min(LONGEST_S, SHORTEST_S * 2.0 ** min(self._failures, 10))
        return bound * random.uniform(0.5, 1.0)

    def insist(self, open_engine: Callable[[], Engine]) -> Engine:
        """Open an engine as soon as its store can be reached.

        Raises:
            EngineReadOnly: its place cannot be written, which waiting does not mend.
        """
        while True:
            try:
                engine = open_engine()
                engine.describe()
            except EngineReadOnly:
                raise
            except EngineUnavailable as error:
                self.failed(error)
                time.sleep(self.pause_s())
            else:
                self.answered()
                return engine

    def answered(self) -> None:
        if self._failures:
            log.warning("%s reached the store again; failed tries: %d", self._who, self._failures)
            self._failures = 0
            self._causes.clear()
