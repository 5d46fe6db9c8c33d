"""The exit statuses of `penstock`, and which error leads to which."""

import signal
from typing import Final

from penstock.loading import AppNotFound
from penstock.model.errors import (
    DurationInvalid,
    EngineUnavailable,
    EngineUnknown,
    PayloadInvalid,
    PenstockError,
    SchemaMismatch,
    SettingsInvalid,
    StoreCorrupt,
    StoreInvalid,
    TaskInvalid,
    TaskUnknown,
    TextInvalid,
)

__all__ = ["DONE", "EPILOG", "FAILED", "INTERRUPTED", "PIPE_CLOSED", "STORE", "UNFIT", "USAGE", "exit_status"]

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
STORE: Final = 3
UNFIT: Final = 4
INTERRUPTED: Final = 128 + signal.SIGINT
#: Whoever read the output went away, as `head` does.
PIPE_CLOSED: Final = 128 + signal.SIGPIPE

EPILOG = """\
\b
Exit statuses:
  0    done
  1    what was asked for failed: a job failed, a job was left alone, doctor found faults
  2    wrong usage, settings, application or arguments
  3    the store cannot be used
  4    a job found the worker unfit
  5    the application was not imported within --start-timeout
  130  interrupted by Ctrl-C
  141  whoever read the output went away
"""

_STATUSES: tuple[tuple[int, tuple[type[PenstockError], ...]], ...] = (
    (STORE, (EngineUnavailable, StoreInvalid, StoreCorrupt, SchemaMismatch)),
    (
        USAGE,
        (
            SettingsInvalid,
            DurationInvalid,
            TextInvalid,
            TaskInvalid,
            TaskUnknown,
            PayloadInvalid,
            EngineUnknown,
            AppNotFound,
        ),
    ),
)


def exit_status(error: PenstockError) -> int:
    """Give the status that a command ends with because of this error."""
    return next((status for status, kinds in _STATUSES if isinstance(error, kinds)), FAILED)
