"""What a process shows its supervisor in shared memory, readable after the process has died.

Layout, in native 64-bit words::

    header   steady time of the pump's last beat (ns, 0 before the first), state, number of claims held
    places   eleven words for each job that can run at once: token, process group of a child or command, thread,
             beginning and deadline (steady ns, 0 for none), length of the job's id, the id as text in five words
    ring     tokens of the jobs that ended last
    words    for each place what its job said last, see `words`

Behind it, not in memory but at the end of its file, stands where threads stood; see `stacks`.

A place holds its job from before the first line of user code until after the last. The token enters the ring before
it leaves its place. So a claim whose code had begun is in a place or in the ring while its outcome is undelivered.
The ring is long enough for that: a process never holds more claims than one exchange carries, and each exchange
delivers at least half of those whose jobs have ended, oldest first. So until an outcome is delivered, at most three
times as many jobs end as one exchange carries.
Each word is written by one thread as one aligned store, so a reader in another process never sees half of it.
"""

import fcntl
import mmap
import os
import struct
from enum import IntEnum
from itertools import count

from msgspec import Struct

from penstock.engine import MOST_AT_ONCE
from penstock.worker.words import LastWords

RING = 4 * MOST_AT_ONCE

_WORD = 8
_BEAT, _STATE, _HELD = 0, 1, 2
_HEADER = 8
_PLACE = 11
_TOKEN, _GROUP, _THREAD, _BEGAN, _DEADLINE, _LENGTH, _ID = range(7)
_LONGEST_ID = (_PLACE - _ID) * _WORD
#: Writes a job's beginning, its deadline, the length of its id, and its id.
_write_job = struct.Struct(f"qqq{_LONGEST_ID}s").pack_into

#: How much of what stands behind the board is read.
LONGEST_BEHIND = 256 * 1024


class BoardState(IntEnum):
    """How far a process has come. From `IMPORTING` on it shows its stacks when it is asked to."""

    STARTING = 0
    IMPORTING = 1
    WORKING = 2
    QUIET = 3
    ENDED = 4


class Shown(Struct, frozen=True):
    """One running job as its process shows it; `deadline_ns` is steady time, None without a limit.

    Attributes:
        began_ns: steady time.
        thread: the thread that runs it, by its number in its process; 0 if that is not told.
    """

    place: int
    token: int
    id: str
    deadline_ns: int | None
    began_ns: int = 0
    thread: int = 0


class Board:
    """Shared memory of one process, made by its supervisor and handed over as a file descriptor."""

    def __init__(self, descriptor: int, places: int) -> None:
        self.descriptor, self.places = descriptor, places
        self._memory = mmap.mmap(descriptor, _size(places))
        self._bytes = memoryview(self._memory)
        self._words = self._bytes.cast("q")
        self._ring = _HEADER + places * _PLACE
        self.words = LastWords(self._bytes[(self._ring + RING) * _WORD :])
        self._ended = count().__next__

    @classmethod
    def create(cls, places: int) -> "Board":
        descriptor = _anonymous_file()
        try:
            os.ftruncate(descriptor, _size(places))
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
            return cls(descriptor, places)
        except OSError:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Let go of the memory; the other side keeps its own hold on it."""
        self.words.close()
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

    def occupy(self, place: int, token: int, id: str, deadline_ns: int, began_ns: int = 0) -> None:
        """Show that a job starts here; the token is written last, so that a reader finds the rest in place."""
        word, name = _HEADER + place * _PLACE, id.encode()[:_LONGEST_ID]
        _write_job(self._bytes, (word + _BEGAN) * _WORD, began_ns, deadline_ns, len(name), name)
        self._words[word] = token

    def set_group(self, place: int, group: int) -> None:
        """Name the process group of a child or command, to be ended with this process; 0 for none."""
        self._words[_HEADER + place * _PLACE + _GROUP] = group

    def set_thread(self, place: int, thread: int) -> None:
        """Name the thread that runs whatever has this place."""
        self._words[_HEADER + place * _PLACE + _THREAD] = thread

    def set_deadline(self, place: int, deadline_ns: int) -> None:
        """Show another limit for whatever has this place; 0 for none."""
        self._words[_HEADER + place * _PLACE + _DEADLINE] = deadline_ns

    def say(self, token: int, text: str) -> None:
        """Keep what a running job says within reach of whoever looks after this process."""
        tokens = self._words[_HEADER : self._ring : _PLACE].tolist()
        if token in tokens:
            self.words.add(tokens.index(token), token, text)

    def append(self, text: str) -> None:
        """Write something behind the board."""
        os.write(self.descriptor, text.encode(errors="backslashreplace"))

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

    def last_words(self, shown: Shown) -> str:
        """Give what a job said last."""
        return self.words.read(shown.place, shown.token)

    @property
    def size_behind(self) -> int:
        """How many bytes stand behind the board."""
        return os.fstat(self.descriptor).st_size - _size(self.places)

    def behind(self) -> str:
        """Give what stands behind the board."""
        return os.pread(self.descriptor, LONGEST_BEHIND, _size(self.places)).decode(errors="replace")

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
        token, _, thread, began, deadline, length = self._words[word : word + _ID]
        if not token:
            return None
        start = (word + _ID) * _WORD
        id = bytes(self._bytes[start : start + length]).decode(errors="replace")
        return Shown(place, token, id, deadline or None, began, thread)


def _size(places: int) -> int:
    return (_HEADER + places * _PLACE + RING) * _WORD + LastWords.size(places)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("penstock-board")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
