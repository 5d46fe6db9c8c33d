"""Draws the figures of a run as one picture."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, percentile

__all__ = ["draw"]

_CAPTION_WIDTH = 130
_OWN, _OTHER, _GOAL, _MISSED = "#1f6f8b", "#b0b7bd", "#222222", "#c0392b"
_COLORS = {"penstock": _OWN, "huey (default)": _OTHER, "huey (fsync=True)": "#6b7480"}
_Figures = Mapping[str, Figure]


def draw(file: Path, facts: Mapping[str, object], figures: Sequence[Figure]) -> None:
    """Write a PNG with a panel for each theme that has one, and one that holds figures against their goals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_key = {figure.key: figure for figure in figures}
    panels = [panel for theme, panel in _PANELS.items() if any(key.startswith(f"{theme}.") for key in by_key)]
    if any(figure.goal for figure in figures):
        panels.append(_draw_goals)
    if not panels:
        return
    rows = -(-len(panels) // 2)
    sheet, axes = pyplot.subplots(rows, 2, figsize=(15, 5.2 * rows), squeeze=False, layout="constrained")
    for panel, place in zip(panels, axes.flat, strict=False):
        panel(place, by_key)
    for place in list(axes.flat)[len(panels) :]:
        place.axis("off")
    caption = textwrap.fill(_caption(facts), _CAPTION_WIDTH)
    sheet.suptitle(f"{caption}\nbars: median, whiskers: range of the rounds, mark: goal")
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(file, dpi=110)
    pyplot.close(sheet)


def _caption(facts: Mapping[str, object]) -> str:
    names = ["cpu", "cpus", "filesystem", "python", "store", "settings", "durability", "date"]
    if facts.get("store", "sqlite") == "sqlite":
        names[4:6] = ["sqlite", "huey"]
    return ", ".join(f"{name} {facts[name]}" for name in names if name in facts)


def _draw_enqueue(place: Any, figures: _Figures) -> None:
    _bars(place, "enqueue, jobs/s", _of(figures, "enqueue.", "jobs/s"))


def _draw_drain(place: Any, figures: _Figures) -> None:
    _bars(place, "drain, jobs/s", _of(figures, "drain.", "jobs/s"))


def _draw_floor(place: Any, figures: _Figures) -> None:
    _bars(place, "engine alone, jobs/s", _of(figures, "floor.", "jobs/s"))


def _draw_backlog(place: Any, figures: _Figures) -> None:
    _bars(place, "drain while a backlog is held, jobs/s", _of(figures, "backlog.", "jobs/s"))


def _draw_latency(place: Any, figures: _Figures) -> None:
    """Draw how many jobs had started after how long."""
    for figure in _of(figures, "latency.", "ms"):
        if figure.key.endswith(".p99"):
            ranked = sorted(figure.samples)
            shares = [(rank + 1) / len(ranked) for rank in range(len(ranked))]
            name = figure.title.partition(",")[0]
            label = f"{name}: p50 {percentile(ranked, 0.5):.3g} ms, p99 {figure.value:.3g} ms"
            place.step(ranked, shares, label=label, color=_COLORS.get(name))
    place.set_xscale("log")
    place.set_xlabel("ms")
    place.set_title("share of jobs started, idle system", loc="left")
    place.legend(loc="upper left", fontsize=8)
    place.set_ylim(0, 1.3)
    place.grid(alpha=0.3)


def _draw_verbs(place: Any, figures: _Figures) -> None:
    """Draw how long a call takes against how many jobs wait."""
    lines: dict[str, list[tuple[int, Figure]]] = {}
    for figure in _of(figures, "verbs.", "µs"):
        _, verb, backlog = figure.key.split(".")
        lines.setdefault(verb, []).append((int(backlog), figure))
    for points in lines.values():
        label = points[0][1].title.partition(";")[0]
        place.plot([at for at, _ in points], [figure.value for _, figure in points], marker="o", label=label)
    place.set_xscale("log")
    place.set_yscale("log")
    place.set_xlabel("waiting jobs")
    place.set_title("a call, µs", loc="left")
    place.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
    place.grid(alpha=0.3)


def _draw_goals(place: Any, figures: _Figures) -> None:
    """Draw each figure as a multiple of its goal: to the right of 1 it is met."""
    judged = [(figure, figure.goal) for figure in figures.values() if figure.goal is not None]
    reached = [max(f.value / goal.value if goal.rises else goal.value / max(f.value, 1e-9), 0.01) for f, goal in judged]
    colors = [_OWN if figure.is_met else _MISSED for figure, _ in judged]
    place.barh([f"{figure.title} ({goal} {figure.unit})" for figure, goal in judged], reached, color=colors)
    place.axvline(1, color=_GOAL, linewidth=1.2)
    place.set_xscale("log")
    place.invert_yaxis()
    place.tick_params(axis="y", labelsize=7)
    place.set_title("figure to goal (red: missed)", loc="left")


def _bars(place: Any, title: str, figures: Sequence[Figure]) -> None:
    """Draw medians with the range of their samples and a mark at the goal; others than penstock in grey."""
    values = [figure.value for figure in figures]
    spread = [[f.value - min(f.samples) for f in figures], [max(f.samples) - f.value for f in figures]]
    colors = [_OTHER if "huey" in figure.key or "bare" in figure.key else _OWN for figure in figures]
    names = [figure.title.removeprefix("penstock, ") for figure in figures]
    place.barh(names, values, xerr=spread, color=colors, error_kw={"elinewidth": 0.8, "capsize": 2})
    for row, figure in enumerate(figures):
        place.text(figure.value, row, f" {figure.value:,.0f}", va="bottom", fontsize=8)
        if figure.goal is not None:
            place.plot([figure.goal.value] * 2, [row - 0.4, row + 0.4], color=_GOAL, linewidth=2)
    place.margins(x=0.14)
    place.invert_yaxis()
    place.set_title(title, loc="left")


def _of(figures: _Figures, prefix: str, unit: str) -> list[Figure]:
    return [figure for figure in figures.values() if figure.key.startswith(prefix) and figure.unit == unit]


_PANELS: dict[str, Callable[[Any, _Figures], None]] = {
    "enqueue": _draw_enqueue,
    "drain": _draw_drain,
    "latency": _draw_latency,
    "backlog": _draw_backlog,
    "floor": _draw_floor,
    "verbs": _draw_verbs,
}
