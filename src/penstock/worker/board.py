"""What a process shows its supervisor in shared memory, readable after the process has died.

Layout, in native 64-bit words::

    header   steady time of the pump's last beat (ns, 0 before the first), state, number of claims held
    places   nine words for each job that can run at once: token, process group of a child or command,
             deadline (steady ns, 0 for none), length of the job's id, the id as text in five words
    ring     tokens of the jobs that ended last

A place holds its job from before the first line of user code until after the last. The token enters the ring before
it leaves its place. So a claim whose code had begun is in a place or in the ring while its outcome is undelivered.
The ring is long enough for that: a process never holds more claims than one exchange carries, and each exchange
delivers at least half of those whose jobs have ended, oldest first. So until an outcome is delivered, at most three
times as many jobs end as one exchange carries.
Each word is written by one thread as one aligned store, so a reader in another process never sees half of it.
"""

import mmap
import os
import struct
from enum import IntEnum
from itertools import count

from msgspec import Struct

from penstock.engine import MOST_AT_ONCE

RING = 4 * MOST_AT_ONCE

_WORD = 8
_BEAT, _STATE, _HELD = 0, 1, 2
_HEADER = 8
_PLACE = 9
_TOKEN, _GROUP, _DEADLINE, _LENGTH, _ID = 0, 1, 2, 3, 4
_LONGEST_ID = (_PLACE - _ID) * _WORD
#: Writes a job's deadline, the length of its id, and its id.
_write_job = struct.Struct(f"qq{_LONGEST_ID}s").pack_into


class BoardState(IntEnum):
    """How far a process has come. From `IMPORTING` on it shows its stacks when it is asked to."""

    STARTING = 0
    IMPORTING = 1
    WORKING = 2
    QUIET = 3
    ENDED = 4


class Shown(Struct, frozen=True):
    """One running job as its process shows it; `deadline_ns` is steady time, None without a limit."""

    place: int
    token: int
    id: str
    deadline_ns: int | None


class Board:
    """Shared memory of one process, made by its supervisor and handed over as a file descriptor."""

    def __init__(self, descriptor: int, places: int) -> None:
        self.descriptor, self.places = descriptor, places
        self._memory = mmap.mmap(descriptor, _size(places))
        self._bytes = memoryview(self._memory)
        self._words = self._bytes.cast("q")
        self._ring = _HEADER + places * _PLACE
        self._ended = count().__next__

    @classmethod
    def create(cls, places: int) -> "Board":
        descriptor = _anonymous_file()
        try:
            os.ftruncate(descriptor, _size(places))
            return cls(descriptor, places)
        except OSError:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Let go of the memory; the other side keeps its own hold on it."""
        self._words.release()
        self._bytes.release()
        self._memory.close()
        os.close(self.descriptor)

    # -- the process writes ------------------------------------------------------------------------------------------

    def beat(self, now_ns: int) -> None:
        self._words[_BEAT] = now_ns

    def set_state(self, state: BoardState) -> None:
        self._words[_STATE] = state

    def set_held(self, held: int) -> None:
        """Show how many claims are held whose outcome the store does not have yet."""
        self._words[_HELD] = held

    def occupy(self, place: int, token: int, id: str, deadline_ns: int) -> None:
        """Show that a job starts here; the token is written last, so that a reader finds the rest in place."""
        word, name = _HEADER + place * _PLACE, id.encode()[:_LONGEST_ID]
        _write_job(self._bytes, (word + _DEADLINE) * _WORD, deadline_ns, len(name), name)
        self._words[word] = token

    def set_group(self, place: int, group: int) -> None:
        """Name the process group of a child or command, to be ended with this process; 0 for none."""
        self._words[_HEADER + place * _PLACE + _GROUP] = group

    def vacate(self, place: int) -> None:
        """Show that the job in this place has ended; its token goes on into the ring first."""
        words, word = self._words, _HEADER + place * _PLACE
        words[self._ring + self._ended() % RING] = words[word]
        words[word] = 0

    # -- the supervisor reads ----------------------------------------------------------------------------------------

    @property
    def last_beat_ns(self) -> int:
        return self._words[_BEAT]

    @property
    def state(self) -> BoardState:
        return BoardState(self._words[_STATE])

    @property
    def held(self) -> int:
        return self._words[_HELD]

    @property
    def has_ended_jobs(self) -> bool:
        """Whether any job has run to its end here."""
        return self._words[self._ring] != 0

    def running(self) -> list[Shown]:
        """Give every job whose code may be running."""
        return [shown for place in range(self.places) if (shown := self._shown(place)) is not None]

    def groups(self) -> list[int]:
        """Give the process groups of children and commands, also of children that run no job now."""
        words = (self._words[_HEADER + place * _PLACE + _GROUP] for place in range(self.places))
        return [group for group in words if group]

    def started(self) -> frozenset[int]:
        """Give the tokens of every claim whose code had begun and whose outcome may be undelivered."""
        running = {shown.token for shown in self.running()}
        return frozenset(running.union(self._words[self._ring : self._ring + RING]) - {0})

    def _shown(self, place: int) -> Shown | None:
        word = _HEADER + place * _PLACE
        token, _, deadline, length = self._words[word : word + _ID]
        if not token:
            return None
        start = (word + _ID) * _WORD
        id = bytes(self._bytes[start : start + length]).decode(errors="replace")
        return Shown(place, token, id, deadline or None)


def _size(places: int) -> int:
    return (_HEADER + places * _PLACE + RING) * _WORD


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("penstock-board")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
