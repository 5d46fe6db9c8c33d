"""What the processes of this test leave for others to read, beside what `tests.torture.records` names."""

import sqlite3
from typing import Any

from tests.torture.records import store_url

APP = "tests.crashpoints.trade:app"
ERRAND, FRAIL = "tests.crashpoints.trade.errand", "tests.crashpoints.trade.frail"

SETTINGS = {
    "app": APP,
    "lease": "1s",
    "slots": 3,
    "children": 2,
    "processes": 2,
    "shutdown_timeout": "5s",
    "quarantine": False,
    "log_level": "error",
}

#: What jobs did: step, recorded or paid; name.
DONE = "done"
#: What an operator asked for, and what was done as it knows: act, name.
ASKED, SAID = "asked", "said"
#: Who ended otherwise than at a point: role, status.
FAILED = "failed"


def connected() -> Any:
    """Open the database in which the store stands as a program does that has tables of its own there."""
    import psycopg  # slow to import, and most processes do not need it

    url = store_url()
    return sqlite3.connect(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else psycopg.connect(url)
