"""Write the tables of docs/explanation/performance.md from what the benchmarks have found out.

A comment in the page, `<!-- figures: KEY KEY ... -->` or `<!-- facts -->`, says what the table below it holds; the
comment `<!-- end -->` ends the table. `python tools/make_performance.py` writes them; with `--check` it only says
whether they differ, and exits 1.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results" / "sqlite.json"

_TABLE = re.compile(r"(<!-- (figures: (?P<keys>[^>]*?)|facts) -->\n\n).*?(?=<!-- end -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    page, document = PAGE.read_text(encoding="utf-8"), json.loads(RESULTS.read_text(encoding="utf-8"))
    made = filled(page, document)
    if made == page:
        return 0
    if "--check" in arguments:
        print(f"{PAGE.relative_to(ROOT)} does not say what {RESULTS.relative_to(ROOT)} says; run {sys.argv[0]}")
        return 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


def filled(page: str, document: Mapping[str, Any]) -> str:
    """Give the page with its tables made anew."""
    figures = {figure["key"]: figure for figure in document["figures"]}

    def table(found: re.Match[str]) -> str:
        lines = facts(document["facts"]) if found["keys"] is None else rows(figures, found["keys"].split())
        return found[1] + "\n".join(lines) + "\n\n"

    return _TABLE.sub(table, page)


def facts(found: Mapping[str, Any]) -> Iterator[str]:
    """Say on what, with what and how durably it was measured."""
    disk = "" if found["real_disk"] else ", no real disk"
    huey = found["huey_synchronous"]
    yield "| what | value |"
    yield "| --- | --- |"
    yield f"| date | {found['date']} |"
    yield f"| processor | {found['cpus']} CPUs ({found['cpu']}), {found['memory_gib']:g} GiB of memory |"
    yield f"| disk | {found['filesystem']}{disk}; a synced write takes {found['fsync_us']:,} µs |"
    yield f"| load before the run | {', '.join(f'{load:g}' for load in found['load_before'])} (1, 5, 15 minutes) |"
    yield f"| system | {found['system']} |"
    yield f"| versions | Python {found['python']}, SQLite {found['sqlite']}, msgspec {found['msgspec']} |"
    yield f"| penstock {found['penstock']} | durability {found['durability']} |"
    yield f"| huey {found['huey']} | synchronous={huey['default']} by default, {huey['fsync']} with `fsync=True` |"


def rows(figures: Mapping[str, Mapping[str, Any]], keys: list[str]) -> Iterator[str]:
    """Give a table of these figures; a KeyError names one that was not measured."""
    has_goals = any(figures[key]["goal"] for key in keys)
    yield "| what | measured | aim |" if has_goals else "| what | measured |"
    yield "| --- | --- | --- |" if has_goals else "| --- | --- |"
    for key in keys:
        figure = figures[key]
        row = f"| {figure['title']} | {_shown(figure['value'], figure['unit'])} |"
        yield f"{row} {_aim(figure)} |" if has_goals else row


def _aim(figure: Mapping[str, Any]) -> str:
    goal = figure["goal"]
    if goal is None:
        return ""
    aim = f"{'≥' if goal['rises'] else '≤'} {_shown(goal['value'], figure['unit'])}"
    return aim if figure["met"] else f"{aim}: missed"


def _shown(value: float, unit: str) -> str:
    """Write a value with three digits that count, or whole, and its unit."""
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return number if unit == "ratio" else f"{number} {unit}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
