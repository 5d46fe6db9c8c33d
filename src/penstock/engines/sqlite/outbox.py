"""The outbox in an SQLite database of the user's, whatever its journal mode."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from penstock.engine import AddRequest
from penstock.engines import checks
from penstock.engines.clock import SystemClock
from penstock.engines.sqlite.errors import Translator
from penstock.engines.sqlite.schema import transaction
from penstock.engines.sqlite.within import Caller
from penstock.engines.statements import read_statements
from penstock.model.errors import EngineDown, StoreInvalid
from penstock.model.job import NewJob
from penstock.outbox import Entry, Fate, Standing, write_job

SQL = read_statements(Path(__file__).with_name("outbox.sql"))


class SqliteOutbox:
    """The table `penstock_outbox` of one file; each call opens the file anew, and writes in short transactions.

    Args:
        path: the user's database, which must exist.
        now_ms: gives the time of day in ms since the epoch; the system's clock if not given.
        timeout_s: how long a call waits for other writers before it raises `EngineBusy`.
    """

    def __init__(self, path: str | Path, *, now_ms: Callable[[], int] | None = None, timeout_s: float = 5.0) -> None:
        self._path, self._timeout_s = Path(path).absolute(), timeout_s
        self._now_ms = now_ms or SystemClock().wall_ms
        self._errors = Translator(self._path, timeout_s)

    @property
    def url(self) -> str:
        return f"sqlite:///{self._path}"

    def make(self) -> None:
        with self._opened() as db:
            if not _exists(db):
                db.execute(SQL["make"])

    def put(self, connection: Any, jobs: Sequence[NewJob], capabilities: frozenset[str]) -> None:
        checks.check_requests([AddRequest(tuple(jobs))], "store's", capabilities)
        now_ms = self._now_ms()
        rows = [(job.id, write_job(job), now_ms) for job in jobs]
        caller = Caller(connection, self._path, "outbox", timeout_s=self._timeout_s)
        with caller.transaction(SQL["write_nothing"]) as db:
            db.executemany(SQL["put"], rows)

    def take(self, limit: int, lease_ms: int) -> list[Entry]:
        now_ms = self._now_ms()
        with self._opened() as db:
            self._check_table(db)
            if db.execute(SQL["takeable"], (now_ms, 1)).fetchone() is None:
                return []  # looking takes no lock that others wait for
            with transaction(db):
                entries = [Entry(*row) for row in db.execute(SQL["takeable"], (now_ms, limit))]
                db.executemany(SQL["hold"], [(now_ms + lease_ms, entry.number) for entry in entries])
        return entries

    def settle(self, fates: Sequence[Fate]) -> None:
        now_ms = self._now_ms()
        kept = [
            (now_ms + (fate.again_ms or 0), fate.error, fate.again_ms is None, fate.number)
            for fate in fates
            if fate.error is not None
        ]
        with self._opened() as db, transaction(db):
            db.executemany(SQL["drop"], [(fate.number,) for fate in fates if fate.error is None])
            db.executemany(SQL["put_off"], kept)

    def stand(self) -> Standing:
        with self._opened() as db:
            if not _exists(db):
                return Standing(exists=False)
            waiting, oldest_ms, aside = db.execute(SQL["stand"]).fetchone()
            shown = tuple(db.execute(SQL["aside"]).fetchall()) if aside else ()
        age_ms = 0 if oldest_ms is None else max(0, self._now_ms() - oldest_ms)
        return Standing(exists=True, waiting=int(waiting), oldest_ms=age_ms, aside=int(aside), shown=shown)

    def close(self) -> None:
        """Do nothing: no connection outlives a call."""

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        if not os.path.exists(self._path):
            raise EngineDown(f"There is no file {self._path} for the outbox; make your database first.")
        file = f"file:{quote(str(self._path))}?mode=rw"
        with self._errors.translated():
            db = sqlite3.connect(file, uri=True, timeout=self._timeout_s, isolation_level=None)
            with closing(db):
                yield db

    def _check_table(self, db: sqlite3.Connection) -> None:
        if not _exists(db):
            raise StoreInvalid(f"{self._path} holds no outbox yet; run `penstock migrate` first.")


def _exists(db: sqlite3.Connection) -> bool:
    return db.execute(SQL["exists"]).fetchone() is not None
