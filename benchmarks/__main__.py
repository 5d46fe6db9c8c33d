"""`python -m benchmarks`: measures penstock on one kind of store or all, prints, writes JSON and a picture of each."""

import argparse
import datetime
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmarks import (
    backlog,
    drain,
    enqueue,
    floor,
    horizon,
    idle,
    latency,
    machine,
    plot,
    recovery,
    report,
    size,
    verbs,
)
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.goals import held_against_its_goal
from benchmarks.places import STORES, open_place
from benchmarks.workers import ROOT
from penstock.engines.open import open_engine

__all__ = ["BUSY", "PARTIAL", "RESULTS", "end_by_signal", "main", "short"]

THEMES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "enqueue": enqueue.measure,
    "floor": floor.measure,
    "drain": drain.measure,
    "latency": latency.measure,
    "idle": idle.measure,
    "recovery": recovery.measure,
    "backlog": backlog.measure,
    "verbs": verbs.measure,
    "horizon": horizon.measure,
    "size": size.measure,
}
#: Of one kind of store alone.
_PARTICULAR = {"horizon": "postgresql", "size": "redis"}
RESULTS = ROOT / "benchmarks" / "results"
PARTIAL = ROOT / "build" / "benchmarks"
BUSY = 0.5


def main(words: Sequence[str] | None = None) -> int:
    """Run the themes that were asked for; 0 if all went through, whatever the goals say."""
    signal.signal(signal.SIGTERM, end_by_signal)
    asked = _parser().parse_args(words)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if os.getloadavg()[0] > BUSY:
        console.print("[yellow]This machine is busy with other work; the figures will be worse than it can do.[/]")
    for store in STORES if asked.store == "all" else (asked.store,):
        _run(store, asked, console)
    return 0


def _run(store: str, asked: argparse.Namespace, console: Console) -> None:
    """Measure one kind of store, and write down what came out."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=asked.folder or machine.real_disk()) as folder,
        open_place(store, Path(folder)) as place,
    ):
        horizon_s = asked.horizon or (5.0 if asked.quick else 600.0)
        say = partial(_say, console)
        bench = Bench(Path(folder), store, place, asked.quick, asked.scale, horizon_s, say)
        facts = _facts(bench)
        report.print_facts(console, facts)
        figures = _measure(bench, console, asked.only or list(THEMES))
    facts |= bench.facts
    report.print_facts(console, bench.facts)
    whole = not (asked.quick or asked.only or asked.scale != 1)
    out = asked.out or (RESULTS if whole or asked.add else PARTIAL)
    if asked.add:
        facts, figures = report.added_to(out / f"{store}.json", facts, figures)
    report.write_json(out / f"{store}.json", report.as_document(facts, figures))
    plot.draw(out / f"{store}.png", facts, figures)
    report.print_end(console, figures, f"{short(out)}/{store}.{{json,png}}")


def _say(console: Console, text: str) -> None:
    console.print(f"[dim]{text}[/]")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--store", choices=(*STORES, "all"), default="sqlite", help="the kind of store (default: sqlite)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer jobs and rounds: about a minute, rough figures")
    parser.add_argument("--only", nargs="+", choices=THEMES, metavar="NAME", help=f"some of: {', '.join(THEMES)}")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the numbers of jobs (default: 1)")
    parser.add_argument("--horizon", type=float, metavar="S", help="how long a long transaction is open (default: 600)")
    parser.add_argument("--folder", type=Path, help="where the stores stand meanwhile; a real disk")
    parser.add_argument(
        "--add", action="store_true", help="with --only: put what is measured among the results of the last whole run"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help=f"where STORE.json and STORE.png go ({short(RESULTS)}; if partial {short(PARTIAL)})",
    )
    return parser


def _facts(bench: Bench) -> dict[str, object]:
    url = bench.place.make("facts")
    engine = open_engine(url)
    described = engine.describe()
    engine.close()
    bench.place.remove(url)
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        **machine.describe(bench.folder),
        "store": bench.store,
        "settings": bench.place.facts(),
        "durability": described.durability + (", synchronous=FULL" if bench.store == "sqlite" else ""),
        "run": "quick" if bench.quick else "full" if bench.scale == 1 else f"scale {bench.scale:g}",
    }


def _measure(bench: Bench, console: Console, themes: Sequence[str]) -> list[Figure]:
    figures: list[Figure] = []
    for theme in themes:
        if _PARTICULAR.get(theme, bench.store) == bench.store:
            began = time.monotonic()
            found = [held_against_its_goal(figure, bench.store) for figure in THEMES[theme](bench)]
            figures += found
            report.print_figures(console, found, f"{bench.store}: {theme} ({time.monotonic() - began:.0f} s)")
    return figures


def short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def end_by_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Let a TERM unwind the stack, so that workers are ended and files removed."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
