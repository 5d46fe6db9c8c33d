"""The outbox: a table in the user's own database, where jobs wait that were enqueued in its transactions.

For stores that share no database with the application. A worker carries them from there to the store; the ids that the
client has drawn make that harmless to repeat.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from penstock.model.job import JobId, NewJob

__all__ = ["Entry", "Fate", "Outbox", "Standing", "read_job", "write_job"]


class Entry(Struct, frozen=True):
    """One row that was taken: its place, the job as JSON, and how often it was tried before."""

    number: int
    job: str
    tries: int = 0


class Fate(Struct, frozen=True):
    """What becomes of an entry that was taken.

    Attributes:
        error: why the store did not take it; None if it did, and the row goes.
        again_ms: after which time it is tried again; None sets it aside for a person.
    """

    number: int
    error: str | None = None
    again_ms: int | None = None


class Standing(Struct, frozen=True):
    """How an outbox stands.

    Attributes:
        exists: whether there is a table.
        waiting: jobs that are still to be carried; the oldest has waited for `oldest_ms`.
        aside: how many the store refused for good; `shown` has the first of them, each with its error.
    """

    exists: bool
    waiting: int = 0
    oldest_ms: int = 0
    aside: int = 0
    shown: tuple[tuple[JobId, str], ...] = ()


class Outbox(Protocol):
    """The table `penstock_outbox` of one database. `put` is thread-safe; the rest belongs to one thread.

    Every verb may raise `EngineUnavailable`, and `StoreInvalid` if there is no table.
    """

    @property
    def url(self) -> str:
        """Where it is, without its password."""
        ...

    def make(self) -> None:
        """Make the table unless it is there."""
        ...

    def put(self, connection: Any, jobs: Sequence[NewJob], capabilities: frozenset[str]) -> None:
        """Write jobs in the transaction of the caller's connection; a failure leaves that transaction as it was.

        Raises:
            ConnectionInvalid: it cannot carry a job.
            Unsupported: a job asks for what the store, which has these capabilities, does not offer.
        """
        ...

    def take(self, limit: int, lease_ms: int) -> list[Entry]:
        """Take the oldest entries, in order; nobody else gets them before `lease_ms` have passed."""
        ...

    def settle(self, fates: Sequence[Fate]) -> None:
        """Write down what became of entries that were taken, in one step."""
        ...

    def stand(self) -> Standing:
        """Look at it without changing anything."""
        ...

    def close(self) -> None:
        """Let go of its connections; later calls open them again."""
        ...


_read = msgspec.json.Decoder(NewJob).decode


def write_job(job: NewJob) -> str:
    """Write a job as the text of an entry."""
    return msgspec.json.encode(job).decode()


def read_job(text: str) -> NewJob:
    """Read the text of an entry.

    Raises:
        ValueError: it is no job.
    """
    try:
        return _read(text)
    except msgspec.MsgspecError as error:
        raise ValueError(f"The row holds no job: {error}.") from error
