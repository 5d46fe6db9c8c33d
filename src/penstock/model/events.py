"""What penstock tells observers as it happens."""

from msgspec import Struct

from penstock.model.job import JobId
from penstock.model.states import Cause, State


class Event(Struct, frozen=True, omit_defaults=True):
    """One change of one job, as seen by the process that made it.

    Attributes:
        ran_us: how long the attempt ran, in microseconds; 0 if none did.
    """

    id: JobId
    task: str
    queue: str
    cause: Cause
    state: State | None
    attempt: int = 0
    ran_us: int = 0
    error: str = ""
