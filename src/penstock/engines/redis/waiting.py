"""Waiting for news: one blocking read of the streams of the store, which ends with the first entry after a mark.

An entry's id is the number that the store has counted to, so that nothing is missed between a look and the wait, also
when the connection was lost in between. Who does not wait costs the writers nothing.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from penstock.engine import Subject
from penstock.engines.redis.server import Server
from penstock.model.errors import EngineUnavailable

_POLL_S = 1.0
_PAUSE_S = 0.2
_PAUSE_AFTER_OTHERS_S = (0.002, 0.005)
#: How much later than the end of a wait its answer may come.
_GRACE_S = 1.0
_ENTRIES = 64


class Waiting:
    """One call of `wait`.

    Args:
        marks: for each kind of news how far the caller knows it; None where it does not say.
        look: tells whether a job of the subject is over, and how far each kind of news has come.
    """

    def __init__(
        self,
        server: Server,
        subject: Subject,
        marks: dict[str, int | None],
        look: Callable[[], tuple[bool, dict[str, int]]],
    ) -> None:
        self._server, self._subject, self._look = server, subject, look
        self._marks = marks
        self._looked = time.monotonic()
        self._must_look = bool(subject.jobs) or None in marks.values()

    def until(self, deadline: float) -> None:
        while True:
            try:
                if self._has_come(deadline):
                    return
            except EngineUnavailable:
                time.sleep(max(0.0, min(deadline - time.monotonic(), _PAUSE_S * random.uniform(0.5, 1.5))))
            if time.monotonic() >= deadline:
                return

    def _has_come(self, deadline: float) -> bool:
        if self._must_look and self._is_known_to_have_come():
            return True
        left = min(deadline - time.monotonic(), _POLL_S * random.uniform(0.8, 1.2))
        if left <= 0 or not self._marks:
            return not self._marks
        entries = self._read(left)
        concerning = {kind for kind, fields in entries if self._concerns(kind, fields)}
        if concerning - {"done"}:
            return True
        self._must_look = not entries or bool(concerning) or time.monotonic() - self._looked > _POLL_S
        if not self._must_look:  # the news of others come as fast as they like
            time.sleep(max(0.0, min(deadline - time.monotonic(), random.uniform(*_PAUSE_AFTER_OTHERS_S))))
        return False

    def _is_known_to_have_come(self) -> bool:
        over, numbers = self._look()
        self._looked = time.monotonic()
        was_set_back = False
        for kind, mark in self._marks.items():
            if mark is None or kind == "done" or numbers[kind] < mark:
                was_set_back = was_set_back or (mark is not None and numbers[kind] < mark)
                self._marks[kind] = numbers[kind]
        return over or was_set_back

    def _read(self, left_s: float) -> list[tuple[str, list[bytes]]]:
        kinds = list(self._marks)
        keys = [self._server.prefix + b"news:" + kind.encode() for kind in kinds]
        ids = [f"{max(mark or 0, 0)}-0" for mark in self._marks.values()]
        block = ("BLOCK", max(1, int(left_s * 1000)), "COUNT", _ENTRIES)
        within_s = left_s + min(self._server.timeout_s, _GRACE_S)
        found = self._server.command("XREAD", *block, "STREAMS", *keys, *ids, within_s=within_s)
        told = []
        for key, entries in found or ():
            kind = key.rpartition(b":")[2].decode()
            self._marks[kind] = int(entries[-1][0].partition(b"-")[0])
            told += [(kind, fields) for _, fields in entries]
        return told

    def _concerns(self, kind: str, fields: Sequence[Any]) -> bool:
        """Say whether an entry is about the subject; `*` stands for more than an entry can name."""
        wanted: tuple[str, ...] = ()
        if kind == "work":
            wanted = self._subject.queues or ()
        elif kind == "done":
            wanted = tuple(self._subject.jobs)
        elif kind == "steer" and self._subject.process is not None:
            wanted = (self._subject.process,)
        named = fields[1::2]
        return not wanted or b"*" in named or any(name.encode() in named for name in wanted)
