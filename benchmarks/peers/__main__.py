"""`python -m benchmarks.peers`: measures penstock beside its peers, prints, writes JSON and a picture."""

import argparse
import contextlib
import datetime
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import machine, report
from benchmarks.__main__ import BUSY, PARTIAL, RESULTS, end_by_signal, short
from benchmarks.peers import plot, results
from benchmarks.peers.contenders import Contender, chosen
from benchmarks.peers.environments import pinned
from benchmarks.peers.rounds import Effort, Findings, measure
from benchmarks.places import open_place

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> int:
    """Measure who was asked for; 0 unless nobody could be measured, whatever the goals say."""
    signal.signal(signal.SIGTERM, end_by_signal)
    parser = _parser()
    asked = parser.parse_args(words)
    try:
        contenders = chosen(asked.only or [])
    except LookupError as error:
        parser.error(str(error))
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    began, load = time.monotonic(), os.getloadavg()[0]
    if load > BUSY:
        console.print("[yellow]This machine is busy with other work; the figures will be worse than it can do.[/]")
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=asked.folder or machine.real_disk()) as folder,
        contextlib.ExitStack() as stack,
    ):
        stores = dict.fromkeys(one.store for one in contenders)
        places = {store: stack.enter_context(open_place(store, Path(folder))) for store in stores}
        found = {store: place.facts() for store, place in places.items()}
        facts = _facts(Path(folder), contenders, found, "quick" if asked.quick else "full")
        report.print_facts(console, facts)
        effort = Effort.quick() if asked.quick else Effort.full()
        findings = measure(contenders, places, effort, lambda text: console.print(f"[dim]{escape(text)}[/]"))
    figures = results.figures_of(contenders, findings)
    document = results.document(facts, contenders, figures, findings)
    _print(console, contenders, document, findings)
    out = asked.out or (PARTIAL if asked.quick or asked.only else RESULTS)
    report.write_json(out / "peers.json", document)
    plot.draw(out / "peers.png", _caption(facts, found), figures)
    report.print_end(console, figures, f"{short(out)}/peers.{{json,png}} after {time.monotonic() - began:.0f} s")
    return 0 if figures else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer jobs, one round, little patience: rough figures")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some queues or stores: redis, celery, sqlite.huey")
    parser.add_argument("--folder", type=Path, help="where the stores stand meanwhile; a real disk")
    parser.add_argument(
        "--out", type=Path, help=f"where peers.json and peers.png go ({short(RESULTS)}; if partial {short(PARTIAL)})"
    )
    return parser


def _facts(
    folder: Path, contenders: Sequence[Contender], places: Mapping[str, Mapping[str, object]], run: str
) -> dict[str, object]:
    """Say what is measured, with what, on what, and how durably."""
    versions = {package: pinned(one.home)[package] for one in contenders if one.home for package in one.packages}
    versions |= {
        f"{one.home}'s redis": pinned(one.home)["redis"] for one in contenders if one.home and "redis" in one.packages
    }
    versions.pop("redis", None)
    found = machine.describe(folder)
    for name in ("huey", "sqlite"):
        found.pop(name)  # those of this environment, where they are not used
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        **found,
        **places,
        "versions": dict(sorted(versions.items())),
        "counted_by": "what each job writes into a journal as it runs; latency to its first line; memory is PSS",
        "run": run,
    }


def _caption(facts: Mapping[str, object], places: Mapping[str, Mapping[str, object]]) -> str:
    names = ("cpu", "cpus", "filesystem", "python", "penstock", "date", "run")
    stores = [
        f"{store}: {', '.join(f'{name} {value}' for name, value in found.items())}" for store, found in places.items()
    ]
    return "\n".join([", ".join(f"{name} {facts[name]}" for name in names), *stores])


def _print(console: Console, contenders: Sequence[Contender], document: dict[str, object], findings: Findings) -> None:
    tables = document["tables"]
    assert isinstance(tables, dict)
    for store, rows in tables.items():
        shown = Table(title=store, title_justify="left")
        for number, heading in enumerate(results.COLUMNS):
            shown.add_column(heading, justify="right" if number else "left")
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
    for one in contenders:
        if one.key in findings.failures:
            console.print(
                f"[red]{one.title} on {one.store} could not be measured:[/] {escape(findings.failures[one.key])}"
            )


if __name__ == "__main__":
    sys.exit(main())
