"""Progress and log text of running jobs, gathered until the pump stores them."""

import threading

from penstock.engine import Note
from penstock.model.job import Claim, Progress
from penstock.worker.board import Board

LONGEST_LOG = 64 * 1024


class Notes:
    """Collects what jobs say; of several progress reports of one job only the last is kept. Thread-safe.

    Args:
        board: where the last of it outlives this process.
    """

    def __init__(self, board: Board | None = None) -> None:
        self._board = board
        self._lock = threading.Lock()
        self._pending: dict[int, _Pending] = {}

    def put(self, claim: Claim, progress: Progress | None, log: str) -> None:
        with self._lock:
            pending = self._pending.get(claim.fence.token)
            if pending is None:
                pending = self._pending[claim.fence.token] = _Pending(claim)
            if progress is not None:
                pending.progress = progress
            if log:
                pending.append(log)
                if self._board is not None:
                    self._board.say(claim.fence.token, log)

    def __bool__(self) -> bool:
        return bool(self._pending)

    def take(self) -> list[Note]:
        """Give all that was put since the last time."""
        if not self._pending:
            return []
        with self._lock:
            taken, self._pending = self._pending, {}
        return [pending.note() for pending in taken.values()]


class _Pending:
    __slots__ = ("claim", "parts", "progress", "size")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.progress: Progress | None = None
        self.parts: list[str] = []
        self.size = 0

    def append(self, text: str) -> None:
        """Keep the tail; joining only at twice the bound keeps the cost of each line constant."""
        text = text[-LONGEST_LOG:]
        self.parts.append(text)
        self.size += len(text)
        if self.size > 2 * LONGEST_LOG:
            self.parts = ["".join(self.parts)[-LONGEST_LOG:]]
            self.size = LONGEST_LOG

    def note(self) -> Note:
        log = "".join(self.parts)[-LONGEST_LOG:].encode("utf-8", "backslashreplace").decode()
        claim = self.claim
        return Note(claim.id, claim.fence, self.progress, log, claim.attempt)
