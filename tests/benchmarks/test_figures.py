"""What the benchmarks make of their samples."""

from pathlib import Path

import pytest

from benchmarks.figures import Figure, Goal, at_least, at_most, interleaved, percentile, ratios
from benchmarks.report import added_to, as_document, write_json


def test_value_of_a_figure_is_the_median_of_its_rounds() -> None:
    assert Figure.of("drain.thread.1", "drain", "jobs/s", [3.0, 1.0, 2.0]).value == 2.0


def test_figure_without_a_goal_is_neither_met_nor_missed() -> None:
    assert Figure.of("drain.thread.1", "drain", "jobs/s", [1.0]).is_met is None


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [(at_least(5), 5, True), (at_least(5), 4.9, False), (at_most(5), 5, True), (at_most(5), 5.1, False)],
)
def test_goal_is_met_at_its_own_value_and_beyond(goal: Goal, value: float, met: bool) -> None:
    assert Figure.of("drain.thread.1", "drain", "jobs/s", [value], goal=goal).is_met is met


def test_document_names_the_source_of_a_goal() -> None:
    assert (
        Figure.of("drain.thread.1", "drain", "jobs/s", [1.0], goal=at_least(5)).as_json()["goal_source"]
        == "project goal"
    )


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    assert interleaved({"a": lambda: run("a"), "b": lambda: run("b")}, 2) == {"a": [1, 3], "b": [2, 4]}
    assert order == ["a", "b", "a", "b"]


def test_ratio_divides_what_was_measured_in_the_same_round() -> None:
    assert ratios([4.0, 9.0], [2.0, 3.0]) == [2.0, 3.0]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.0, 1), (1.0, 100)])
def test_percentile_is_the_smallest_sample_that_covers_the_share(share: float, expected: float) -> None:
    assert percentile([float(sample) for sample in range(100, 0, -1)], share) == expected


def test_percentile_of_few_samples_is_the_largest_rather_than_a_guess() -> None:
    assert percentile([1.0, 2.0, 3.0], 0.99) == 3.0


def test_figures_are_put_in_place_of_those_of_their_theme_and_say_when(tmp_path: Path) -> None:
    file = tmp_path / "sqlite.json"
    old = [Figure.of("drain.a", "a", "jobs/s", [1.0], goal=at_least(2)), Figure.of("latency.b", "b", "ms", [9.0])]
    write_json(file, as_document({"date": "2026-01-01", "store": "sqlite"}, old))
    new = [Figure.of("latency.c", "c", "ms", [3.0])]
    facts, figures = added_to(file, {"date": "2026-02-02"}, new)
    assert facts == {"date": "2026-01-01", "store": "sqlite", "added": {"latency": "2026-02-02"}}
    assert figures == [old[0], new[0]]
