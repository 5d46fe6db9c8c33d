"""What a program that uses penstock tests itself with, and what an engine is tested with."""

from penstock.testing.clock import TurnedClock as TurnedClock

__all__ = ["TurnedClock"]
