"""What a program that uses penstock tests itself with, and what an engine is tested with."""

from penstock.testing.clock import TurnedClock as TurnedClock
from penstock.testing.memory import memory_engine as memory_engine
from penstock.testing.running import run_jobs as run_jobs

__all__ = ["TurnedClock", "memory_engine", "run_jobs"]
