"""Write the tables of docs/explanation/performance.md from what the benchmarks have found out.

A comment in the page says what stands below it, and the comment `<!-- end -->` ends that:

- `<!-- facts -->`: on what it was measured; `<!-- figures: KEY KEY ... -->`: these figures;
- `<!-- figures: FILE.json ... -->`: the same of another file than `sqlite.json`. There `facts` stands for the facts,
  `goals` for all figures that have one, `picture` for the plot of the same name, and, of `peers.json`, `table STORE`
  for the comparison on a store and `settings STORE` for how each queue was set up; `verbs` stands for what a call of
  each verb takes, by backlog.

What was not measured yet is said so. `python tools/make_performance.py` writes the page; with `--check` it only says
whether it differs, and exits 1.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"

_DEFAULT = "sqlite.json"
_MADE = re.compile(r"(<!-- (?:figures: (?P<words>[^>]*?)|facts) -->\n\n).*?(?=<!-- end -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    page = PAGE.read_text(encoding="utf-8")
    made = filled(page, RESULTS)
    if made == page:
        return 0
    if "--check" in arguments:
        print(f"{PAGE.relative_to(ROOT)} does not say what {RESULTS.relative_to(ROOT)} says; run {sys.argv[0]}")
        return 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


def filled(page: str, results: Path) -> str:
    """Give the page with its tables made anew from the files in a folder."""

    def made(found: re.Match[str]) -> str:
        words = (found["words"] or "facts").split()
        file = results / (words.pop(0) if words[0].endswith(".json") else _DEFAULT)
        return found[1] + "\n".join(_lines(file, words)) + "\n\n"

    return _MADE.sub(made, page)


def _lines(file: Path, words: list[str]) -> Iterator[str]:
    if not file.exists():
        yield "*Not measured yet.*"
        return
    document = json.loads(file.read_text(encoding="utf-8"))
    match words:
        case ["facts"]:
            yield from facts(document["facts"])
        case ["picture"]:
            yield f"![The figures of this section as a plot](../../benchmarks/results/{file.stem}.png)"
        case ["table", store]:
            yield from _table([document["columns"], *document["tables"][store]])
            for key, said in document["failures"].items():
                if key.startswith(f"{store}."):
                    yield f"\n{document['settings'][key]['title']} could not be measured: {said.splitlines()[0]}"
        case ["settings", store]:
            settings = [one for key, one in document["settings"].items() if key.startswith(f"{store}.")]
            yield from _table([["queue", "set up as"], *([one["title"], one["note"]] for one in settings)])
        case ["verbs"]:
            yield from _verbs([figure for figure in document["figures"] if figure["key"].startswith("verbs.")])
        case ["goals"]:
            figures = {figure["key"]: figure for figure in document["figures"]}
            yield from rows(figures, [key for key, figure in figures.items() if figure["goal"]])
        case keys:
            yield from rows({figure["key"]: figure for figure in document["figures"]}, keys)


def _verbs(figures: list[dict[str, Any]]) -> Iterator[str]:
    """Give a line for each verb and a column for each backlog."""
    if not figures:
        yield "*Not measured yet.*"
        return
    backlogs = sorted({int(figure["key"].split(".")[2]) for figure in figures})
    lines: dict[str, list[str]] = {}
    for figure in figures:
        title = figure["title"].partition(";")[0]
        lines.setdefault(title, [title]).append(_shown(figure["value"], figure["unit"]))
    yield from _table([["one call", *(f"{backlog:,} waiting" for backlog in backlogs)], *lines.values()])


def _table(lines: list[list[str]]) -> Iterator[str]:
    """Give a table; the first line is its head."""
    for number, cells in enumerate(lines):
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"| {' | '.join('---' for _ in cells)} |"


def facts(found: Mapping[str, Any]) -> Iterator[str]:
    """Say on what, with what and how durably it was measured."""
    disk = "" if found["real_disk"] else ", no real disk"
    yield "| what | value |"
    yield "| --- | --- |"
    yield f"| date | {found['date']} |"
    yield f"| processor | {found['cpus']} CPUs ({found['cpu']}), {found['memory_gib']:g} GiB of memory |"
    yield f"| disk | {found['filesystem']}{disk}; a synced write takes {found['fsync_us']:,} µs |"
    yield f"| load before the run | {', '.join(f'{load:g}' for load in found['load_before'])} (1, 5, 15 minutes) |"
    yield f"| system | {found['system']} |"
    yield from _versions(found)


def _versions(found: Mapping[str, Any]) -> Iterator[str]:
    """Say which versions and settings; each kind of run knows its own."""
    sqlite = f", SQLite {found['sqlite']}" if isinstance(found.get("sqlite"), str) else ""
    yield f"| versions | Python {found['python']}{sqlite}, msgspec {found['msgspec']} |"
    if "durability" in found:
        yield f"| penstock {found['penstock']} | durability {found['durability']} |"
    else:
        yield f"| penstock | {found['penstock']} |"
    for store in ("redis", "postgresql", "sqlite"):
        if isinstance(found.get(store), dict):
            yield f"| {store} | {_listed(found[store])} |"
    if found.get("store", "sqlite") != "sqlite":
        yield f"| {found['store']} | {_listed(found['settings'])} |"
    if "versions" in found:
        yield f"| others | {', '.join(f'{name} {version}' for name, version in found['versions'].items())} |"
    if "huey_synchronous" in found:
        huey = found["huey_synchronous"]
        yield f"| huey {found['huey']} | synchronous={huey['default']} by default, {huey['fsync']} with `fsync=True` |"


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


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
