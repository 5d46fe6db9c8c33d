"""What every theme is given: where to write, how much to do, and how to say what it does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.places import Place

__all__ = ["Bench"]

T = TypeVar("T")


@dataclass
class Bench:
    """One run of the benchmarks.

    Attributes:
        folder: temporary, on a disk, removed at the end.
        store: the kind of store that is measured.
        place: where such stores are.
        horizon_s: how long a long transaction stays open.
        scale: 1 for a full run, less for a shorter one.
        facts: what the themes found out beside their figures, as how huey really syncs.
    """

    folder: Path
    store: str
    place: Place
    quick: bool = False
    scale: float = 1.0
    horizon_s: float = 600.0
    say: Callable[[str], None] = print
    facts: dict[str, object] = field(default_factory=dict)

    def pick(self, full: T, quick: T) -> T:
        return quick if self.quick else full

    def size(self, full: int, quick: int, *, step: int = 1) -> int:
        """Choose a number of jobs or rounds, scaled, at least one step and a multiple of it."""
        return max(step, round(self.pick(full, quick) * self.scale) // step * step)

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.db"
