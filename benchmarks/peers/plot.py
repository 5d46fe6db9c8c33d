"""Draws the comparison as one picture: a row of panels for each store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.peers.contenders import BARE, CONTENDERS, OWN, STORES, Contender
from benchmarks.peers.sessions import HELD

__all__ = ["draw"]

_OWN, _PEER, _BARE, _SECOND = "#1f6f8b", "#b0b7bd", "#e0c48c", "#6b7480"
_Figures = Mapping[str, Figure]


def draw(file: Path, caption: str, figures: Sequence[Figure]) -> None:
    """Write a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_key = {figure.key: figure for figure in figures}
    there = {
        store: [one for one in CONTENDERS if f"{one.key}.drain.1" in by_key and one.store == store] for store in STORES
    }
    stores = [store for store in STORES if there[store]]
    if not stores:
        return
    heights = [len(there[store]) + 1.5 for store in stores]
    size = (26, 0.55 * sum(heights) + 1)
    sheet, axes = pyplot.subplots(
        len(stores), len(_PANELS), figsize=size, squeeze=False, layout="constrained", height_ratios=heights
    )
    for places, store in zip(axes, stores, strict=True):
        for place, (title, names) in zip(places, _PANELS.items(), strict=True):
            _bars(place, f"{store}: {title}", there[store], names, by_key)
        places[list(_PANELS).index(_LATENCY)].set_xscale("log")
    sheet.suptitle(caption)
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(file, dpi=90)
    pyplot.close(sheet)


_LATENCY = "idle latency p50 and p99, ms"
_PANELS = {
    "enqueue one by one, jobs/s": ("one",),
    "enqueue in bulk, jobs/s": ("many",),
    "drain, 1 and 2 processes, jobs/s": ("drain.1", "drain.2"),
    _LATENCY: ("p50", "p99"),
    f"of {HELD} jobs, completed after a kill": ("completed",),
}


def _bars(place: Any, title: str, contenders: Sequence[Contender], names: Sequence[str], figures: _Figures) -> None:
    """Draw a bar for each contender and figure, the second beneath the first in a darker colour."""
    height = 0.8 / len(names)
    for row, one in enumerate(contenders):
        for number, name in enumerate(names):
            figure = figures.get(f"{one.key}.{name}")
            if figure is not None:
                top = row + (number - (len(names) - 1) / 2) * height
                place.barh(top, figure.value, height * 0.92, color=_color(one, number))
                place.text(
                    figure.value,
                    top,
                    f" {figure.value:,.3g}" if figure.value < 100 else f" {figure.value:,.0f}",
                    va="center",
                    fontsize=7,
                )
    place.set_yticks(range(len(contenders)), [one.title for one in contenders], fontsize=8)
    place.set_ylim(len(contenders) - 0.4, -0.6)
    place.margins(x=0.16)
    place.set_title(title, loc="left", fontsize=10)


def _color(one: Contender, number: int) -> str:
    if number:
        return _SECOND
    return {OWN: _OWN, BARE: _BARE}.get(one.name, _PEER)
