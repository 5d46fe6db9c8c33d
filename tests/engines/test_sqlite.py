"""The SQLite engine does what the memory engine specifies."""

import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from penstock.engine import Clock
from penstock.engines.sqlite import SqliteEngine
from penstock.testing.conformance import EngineConformance, machine


class SqliteFactory:
    """One file; every handle is an engine of its own. Commits need not survive a power loss here."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder if folder is not None else Path(tempfile.mkdtemp(prefix="penstock-"))
        self._path = self._folder / "store.db"
        self.url = f"sqlite:///{self._path}?durability=normal"

    def make(self, clock: Clock | None, *, max_ended: int = 100_000) -> SqliteEngine:
        return SqliteEngine(self._path, durability="normal", clock=clock, max_ended=max_ended)

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path)

    def discard(self) -> None:
        shutil.rmtree(self._folder)


class TestSqlite(EngineConformance):
    TestNotWithin = None  # it declares transactions

    @pytest.fixture
    def engine_factory(self, tmp_path: Path) -> SqliteFactory:
        return SqliteFactory(tmp_path)


SqliteAgainstMemory = machine(SqliteFactory)


class TestSqliteAgainstMemory(SqliteAgainstMemory.TestCase):
    settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestSqliteAgainstMemoryForLong(SqliteAgainstMemory.TestCase):
    settings = settings(max_examples=20, stateful_step_count=60, deadline=None)


@pytest.mark.torture
@pytest.mark.timeout(7200)
class TestSqliteAgainstMemoryForHours(SqliteAgainstMemory.TestCase):
    settings = settings(settings.get_profile("drawn"), max_examples=5000, stateful_step_count=200, deadline=None)
