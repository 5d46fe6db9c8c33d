"""The memory engine keeps the rules that it specifies."""

import pytest
from hypothesis import settings

from penstock.engine import Clock
from penstock.engines.memory import MemoryEngine
from penstock.testing.conformance import EngineConformance, machine


class MemoryFactory:
    """One store in memory; every handle is the same engine."""

    url = None

    def __init__(self) -> None:
        self._engine: MemoryEngine | None = None

    def make(self, clock: Clock | None, *, max_ended: int = 100_000) -> MemoryEngine:
        if self._engine is None:
            self._engine = MemoryEngine(clock, max_ended=max_ended)
        return self._engine

    def discard(self) -> None:
        self._engine = None


class TestMemory(EngineConformance):
    TestRacing = None  # the store does not outlive its process
    TestWithin = None  # it declares no transactions

    @pytest.fixture
    def engine_factory(self) -> MemoryFactory:
        return MemoryFactory()


class TestMemoryAgainstItself(machine(MemoryFactory).TestCase):
    """Checks the invariants of the machine, and that it allows no answer to depend on a token."""

    settings = settings(max_examples=15, stateful_step_count=40, deadline=None)
