"""Shows figures: a table on the terminal, a JSON document, a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure

__all__ = ["added_to", "as_document", "print_end", "print_facts", "print_figures", "shown", "write_json"]

_MET = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}


def print_facts(console: Console, facts: Mapping[str, object]) -> None:
    """Print what the figures were measured on; nothing if nothing was found out."""
    if not facts:
        return
    table = Table(title="measured on", show_header=False, title_justify="left")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)


def print_figures(console: Console, figures: Sequence[Figure], title: str) -> None:
    """Print one theme's figures: median, range of the samples, goal, and whether it is reached."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for heading in ("median", "lowest", "highest", "goal"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("")
    table.add_column("note", style="dim")
    for figure in figures:
        values = (figure.value, min(figure.samples), max(figure.samples))
        goal = "" if figure.goal is None else str(figure.goal)
        table.add_row(figure.title, *map(shown, values), goal, figure.unit, _MET[figure.is_met], figure.note)
    console.print(table)


def print_end(console: Console, figures: Sequence[Figure], written: str) -> None:
    """Print how many goals were met, where it is written, and what was missed."""
    judged = [figure for figure in figures if figure.is_met is not None]
    missed = [figure for figure in judged if not figure.is_met]
    console.print(f"{len(judged) - len(missed)} of {len(judged)} goals met; written to {written}")
    for figure in missed:
        console.print(f"missed: {figure.title}: {shown(figure.value)} {figure.unit}, goal {figure.goal}")


def shown(value: float) -> str:
    """Write a value with three digits that count, or whole."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def as_document(facts: Mapping[str, object], figures: Sequence[Figure]) -> dict[str, object]:
    """Give everything that was found out, as one JSON document."""
    missed = [figure.key for figure in figures if figure.is_met is False]
    return {"facts": dict(facts), "missed": missed, "figures": [figure.as_json() for figure in figures]}


def added_to(
    file: Path, facts: Mapping[str, object], figures: Sequence[Figure]
) -> tuple[dict[str, object], list[Figure]]:
    """Put figures in place of those of the same themes in a document, which says when that was."""
    document = json.loads(file.read_text())
    themes = {figure.key.partition(".")[0] for figure in figures}
    kept = [Figure.from_json(one) for one in document["figures"] if one["key"].partition(".")[0] not in themes]
    dates = document["facts"].get("added", {}) | dict.fromkeys(sorted(themes), facts["date"])
    return document["facts"] | {"added": dates}, [*kept, *figures]


def write_json(file: Path, document: Mapping[str, object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n")
