"""`python -m benchmarks`: measures, prints, writes JSON and a picture."""

import argparse
import datetime
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmarks import backlog, drain, enqueue, floor, idle, latency, machine, plot, recovery, report
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.workers import ROOT
from penstock.engines.open import open_engine

__all__ = ["main"]

THEMES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "enqueue": enqueue.measure,
    "floor": floor.measure,
    "drain": drain.measure,
    "latency": latency.measure,
    "idle": idle.measure,
    "recovery": recovery.measure,
    "backlog": backlog.measure,
}
RESULTS = ROOT / "benchmarks" / "results"
PARTIAL = ROOT / "build" / "benchmarks"
_BUSY = 0.5


def main(words: Sequence[str] | None = None) -> int:
    """Run the themes that were asked for; 0 if all went through, whatever the goals say."""
    signal.signal(signal.SIGTERM, _end)
    asked = _parser().parse_args(words)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=asked.folder or machine.real_disk()) as folder:
        bench = Bench(Path(folder), asked.quick, asked.scale, lambda text: console.print(f"[dim]{text}[/]"))
        facts = _facts(bench)
        report.print_facts(console, facts)
        if os.getloadavg()[0] > _BUSY:
            console.print("[yellow]This machine is busy with other work; the figures will be worse than it can do.[/]")
        figures = _measure(bench, console, asked.only or list(THEMES))
    facts |= bench.facts
    report.print_facts(console, bench.facts)
    whole = not (asked.quick or asked.only or asked.scale != 1)
    out = asked.out or (RESULTS if whole else PARTIAL)
    report.write_json(out / "sqlite.json", report.as_document(facts, figures))
    plot.draw(out / "sqlite.png", facts, figures)
    _print_end(console, figures, out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer jobs and rounds: about a minute, rough figures")
    parser.add_argument("--only", nargs="+", choices=THEMES, metavar="NAME", help=f"some of: {', '.join(THEMES)}")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the numbers of jobs (default: 1)")
    parser.add_argument("--folder", type=Path, help="where the stores stand meanwhile; a real disk")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"where sqlite.json and sqlite.png go ({_short(RESULTS)}; if partial {_short(PARTIAL)})",
    )
    return parser


def _facts(bench: Bench) -> dict[str, object]:
    engine = open_engine(f"sqlite:///{bench.file('facts')}")
    described = engine.describe()
    engine.close()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        **machine.describe(bench.folder),
        "durability": f"{described.durability}, synchronous=FULL",
        "run": "quick" if bench.quick else "full" if bench.scale == 1 else f"scale {bench.scale:g}",
    }


def _measure(bench: Bench, console: Console, themes: Sequence[str]) -> list[Figure]:
    figures: list[Figure] = []
    for theme in themes:
        began = time.monotonic()
        found = list(THEMES[theme](bench))
        figures += found
        report.print_figures(console, found, f"{theme} ({time.monotonic() - began:.0f} s)")
    return figures


def _print_end(console: Console, figures: Sequence[Figure], out: Path) -> None:
    judged = [figure for figure in figures if figure.is_met is not None]
    missed = [figure for figure in judged if not figure.is_met]
    console.print(
        f"{len(judged) - len(missed)} of {len(judged)} goals met; written to {_short(out)}/sqlite.{{json,png}}"
    )
    for figure in missed:
        console.print(f"missed: {figure.title}: {report.shown(figure.value)} {figure.unit}, goal {figure.goal}")


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Let a TERM unwind the stack, so that workers are ended and files removed."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
