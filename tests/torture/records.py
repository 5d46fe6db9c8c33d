"""What tormented processes leave behind: files in one folder, to which each appends whole lines.

A line that was written survives the kill of its writer, and short ones are never torn, so nothing is synced.
"""

import os
from collections.abc import Iterator
from pathlib import Path

#: Names the folder to every process that works in it.
FOLDER = "TORTURE_FOLDER"

#: Names the store, where it is not the file `store.db` in the folder.
STORE = "TORTURE_STORE"

#: Which process is which in the store: pid, process id.
PROCESSES = "processes"
#: What jobs did: `began` or `ended`, job id, claim number, token, pid.
EFFECTS = "effects"
#: What producers asked for: pid, batch, size; and what they were told is stored: batch.
ATTEMPTED, ACCEPTED = "attempted", "accepted"
#: Processes that killed themselves at a crash point: pid, role, point.
BLOWN = "blown"
#: Set, to a number, where every so many replies to exchanges shall be lost; what was lost: pid, claims in it.
LOSE_REPLIES, LOST = "TORTURE_LOSE_REPLIES", "lost"
#: Set where a process shall freeze itself just before it delivers what has ended.
FREEZE_AT_DELIVERY = "TORTURE_FREEZE_AT_DELIVERY"
#: Set where all that is asked of the store, and answered, shall be written down.
HISTORY = "TORTURE_HISTORY"
#: Its presence tells producers to end.
ENOUGH = "enough"

#: Where producers put their jobs.
QUEUES = ("north", "east", "south", "west")

#: Where jobs wait that are not plain ones.
ERRANDS = "errands"


def folder() -> Path:
    return Path(os.environ[FOLDER])


def store_url() -> str:
    return os.environ.get(STORE) or f"sqlite:///{folder()}/store.db"


class Record:
    """One such file to write to; opened anew in each process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._opened: tuple[int, int] | None = None

    def add(self, *words: object) -> None:
        if self._opened is None or self._opened[0] != os.getpid():
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._opened = (os.getpid(), os.open(folder() / self._name, flags, 0o600))
        os.write(self._opened[1], (" ".join(map(str, words)) + "\n").encode())


class Trail:
    """One such file to read, whole or as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0

    def news(self) -> Iterator[list[str]]:
        """Give the words of each line that came since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                yield line.decode().split()
