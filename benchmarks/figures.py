"""What was measured: figures, their spread, and the goals they are held against."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Figure", "Goal", "at_least", "at_most", "interleaved", "percentile", "ratios"]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should reach, and who says so."""

    value: float
    rises: bool
    source: str = "project goal"

    def is_met(self, value: float) -> bool:
        return value >= self.value if self.rises else value <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.rises else '≤'} {self.value:,g}"


def at_least(value: float) -> Goal:
    return Goal(value, rises=True)


def at_most(value: float) -> Goal:
    return Goal(value, rises=False)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Attributes:
        key: its stable name, as `drain.thread.1`; the part before the first dot is its theme.
        samples: one value for each round, or for each event where `value` is a percentile of events.
        value: the median of the samples unless something else is given.
    """

    key: str
    title: str
    unit: str
    samples: tuple[float, ...]
    value: float
    goal: Goal | None = None
    note: str = ""

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "Figure":
        """Read what `as_json` wrote."""
        goal = written["goal"]
        return cls(
            written["key"],
            written["title"],
            written["unit"],
            tuple(written["samples"]),
            written["value"],
            None if goal is None else Goal(goal["value"], goal["rises"], written["goal_source"]),
            written["note"],
        )

    @classmethod
    def of(
        cls,
        key: str,
        title: str,
        unit: str,
        samples: Sequence[float],
        *,
        value: float | None = None,
        goal: Goal | None = None,
        note: str = "",
    ) -> "Figure":
        """Make a figure of samples; its value is their median unless given."""
        middle = statistics.median(samples) if value is None else value
        return cls(key, title, unit, tuple(samples), middle, goal, note)

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        return None if self.goal is None else self.goal.is_met(self.value)

    def as_json(self) -> dict[str, object]:
        return {
            "key": self.key,
            "title": self.title,
            "unit": self.unit,
            "value": self.value,
            "lowest": min(self.samples),
            "highest": max(self.samples),
            "samples": list(self.samples),
            "goal": None if self.goal is None else {"value": self.goal.value, "rises": self.goal.rises},
            "goal_source": None if self.goal is None else self.goal.source,
            "met": self.is_met,
            "note": self.note,
        }


def interleaved(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run every contender once a round, A B A B, so that what slows the machine slows all of them."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            samples[name].append(run())
    return samples


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divide round by round, so that both sides of each ratio saw the same machine."""
    return [one / other for one, other in zip(above, below, strict=True)]


def percentile(samples: Sequence[float], share: float) -> float:
    """Give the smallest sample that at least `share` (0 to 1) of all samples do not exceed."""
    ranked = sorted(samples)
    return ranked[max(0, -(-len(ranked) * round(share * 1000) // 1000) - 1)]
