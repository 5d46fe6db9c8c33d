"""The last words of running jobs, in memory that outlives their process: what its log has not stored yet, too.

Layout: for each place the token of the job that speaks, how many bytes it has said, and the last of them, the oldest
overwritten first. Nothing is cleared for a job that says nothing.
"""

import struct
import threading

WORDS_KEPT = 4 * 1024
LONGEST_WAIT_S = 0.05

_HEAD = struct.Struct("qQ")
_ROOM = _HEAD.size + WORDS_KEPT


class LastWords:
    """What each place said last. Thread-safe; another process reads it once the writing one has ended."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._lock = threading.Lock()

    @staticmethod
    def size(places: int) -> int:
        return places * _ROOM

    def close(self) -> None:
        self._memory.release()

    def add(self, place: int, token: int, text: str) -> None:
        data = text[-WORDS_KEPT:].encode(errors="backslashreplace")[-WORDS_KEPT:]
        start = place * _ROOM
        room = start + _HEAD.size
        # Not for long: a signal's handler may have come in between, and a fork have copied the lock while it was held.
        if not self._lock.acquire(timeout=LONGEST_WAIT_S):
            return
        try:
            owner, said = _HEAD.unpack_from(self._memory, start)
            said = said if owner == token else 0
            at = said % WORDS_KEPT
            first = min(len(data), WORDS_KEPT - at)
            self._memory[room + at : room + at + first] = data[:first]
            self._memory[room : room + len(data) - first] = data[first:]
            _HEAD.pack_into(self._memory, start, token, said + len(data))
        finally:
            self._lock.release()

    def read(self, place: int, token: int) -> str:
        """Give what a job said last, from the beginning of a line if not all of it is there."""
        start = place * _ROOM
        owner, said = _HEAD.unpack_from(self._memory, start)
        if owner != token:
            return ""
        room = start + _HEAD.size
        kept = bytes(self._memory[room : room + min(said, WORDS_KEPT)])
        at = said % WORDS_KEPT if said > WORDS_KEPT else 0
        text = (kept[at:] + kept[:at]).decode(errors="replace")
        return text if said <= WORDS_KEPT else _whole_lines(text)


def _whole_lines(text: str) -> str:
    _, cut, rest = text.partition("\n")
    return rest if cut and rest else text


#: Lines of last words that are kept with an error.
LINES_KEPT = 20


def last_lines(text: str) -> str:
    """Give the last lines of a text, as many as are kept with an error."""
    lines = text[-WORDS_KEPT:].splitlines(keepends=True)
    return "".join(lines[-LINES_KEPT:])
