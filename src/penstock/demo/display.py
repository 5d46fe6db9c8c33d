"""What the demo shows: a live bar on a terminal, plain lines elsewhere, and the account at the end."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from penstock.demo.casualty import Toll
from penstock.demo.counting import Balance, Totals
from penstock.model.job import Job

__all__ = [
    "Meter",
    "compare",
    "measured",
    "plural",
    "say",
    "tell_balance",
    "tell_buried",
    "tell_flaky",
    "tell_kept",
    "tell_toll",
]

_STEPS = 5
_PATHS = 10
_ROWS = (
    ("files", "files"),
    ("  counted", "counted"),
    ("  unreadable, so the job was buried", "unreadable"),
    ("lines", "lines"),
    ("functions and classes", "definitions"),
    ("bytes when compressed", "compressed"),
    ("counted files that are no valid Python", "broken"),
)


class Meter(Protocol):
    """Shows how far something is."""

    def show(self, done: int) -> None: ...


@contextmanager
def measured(console: Console, what: str, total: int) -> Iterator[Meter]:
    """Give a bar that lives, or a line for each fifth where nothing can move."""
    if not console.is_terminal:
        yield _Lines(console, what, total)
        return
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress, progress.add_task(what, total=total))


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def show(self, done: int) -> None:
        self._progress.update(self._task, completed=done)


class _Lines:
    def __init__(self, console: Console, what: str, total: int) -> None:
        self._console, self._what, self._total = console, what, total
        self._shown = 0

    def show(self, done: int) -> None:
        steps = done * _STEPS // self._total
        if steps > self._shown:
            self._shown = steps
            say(self._console, f"{self._what}: {done:,} of {self._total:,}")


def say(console: Console, text: str, style: str = "") -> None:
    """Write a text as it is; what stands in brackets is no markup here."""
    for line in text.splitlines():
        console.print(Text(f"  {line}" if line else "", style), soft_wrap=True)


def compare(console: Console, ours: Totals, plain: Totals, ours_s: float, plain_s: float) -> None:
    """Show both computations side by side."""
    table = Table(show_edge=False, box=SIMPLE_HEAD)
    table.add_column("")
    table.add_column("by jobs", justify="right")
    table.add_column("one after another", justify="right")
    for label, name in _ROWS:
        one, other = getattr(ours, name), getattr(plain, name)
        table.add_row(label, f"{one:,}", f"{other:,}", style="" if one == other else "bold red")
    table.add_row("time, start of the worker included", f"{ours_s:.1f} s", f"{plain_s:.1f} s")
    console.print()
    console.print(table)


def tell_toll(console: Console, toll: Toll) -> None:
    """Say what the killed process held and what became of it."""
    console.print()
    if not toll.held:
        say(console, f"Killed: process {toll.pid}. It held no job at that moment.")
        return
    say(
        console,
        f"Killed: process {toll.pid}. It held {plural(toll.held, 'job')}.\n"
        f"        Begun, so charged a crash: {toll.begun}. Only claimed, so given back: {toll.held - toll.begun}.\n"
        f"        Run again and ended: {toll.ended} of {toll.held}.",
    )


def tell_flaky(console: Console, jobs: Iterable[Job]) -> None:
    """Say what failed and came right by itself."""
    for job in jobs:
        for error in job.history:
            if error.kind == "failed":
                said = f"{error.type.rpartition('.')[2]}: {error.message}"
                say(console, f"Flaky:  job {job.id} failed at attempt {error.attempt}:\n        {said}")
                say(console, f"        It succeeded at attempt {job.counters.attempts}.")


def tell_buried(console: Console, jobs: Iterable[Job]) -> None:
    """Show each job that a person has to look at, with its traceback."""
    for job in jobs:
        say(console, f"Buried: job {job.id} after {plural(job.counters.failures, 'failure')}:")
        text = "" if job.error is None else job.error.traceback or str(job.error)
        say(console, "\n".join(f"        {line}" for line in text.splitlines()), "dim")


def tell_balance(console: Console, balance: Balance, totals: Totals, *, equal: bool) -> None:
    """Say whether anything was lost or counted twice."""
    console.print()
    if equal:
        say(console, "Nothing was lost, nothing was counted twice, and the sums are the same:", "bold green")
        counted = f"{plural(totals.counted, 'file')} counted"
        say(console, f"{counted}, {totals.unreadable} buried, one process killed.", "bold green")
        return
    say(console, "The sums DIFFER.", "bold red")
    faults = (("lost", balance.lost), ("counted twice", balance.doubled), ("counted differently", balance.different))
    for what, paths in faults:
        say(console, f"{len(paths):,} {what}" + "".join(f"\n  {path}" for path in paths[:_PATHS]))
    if balance.different:
        say(console, "A file that somebody writes to meanwhile is counted differently; if so, run the demo again.")


def tell_kept(console: Console, url: str, buried: Iterable[Job], folder: Path) -> None:
    """Give the commands that look at what was kept."""
    console.print()
    shown = [f"penstock jobs show {job.id}" for job in buried]
    commands = [f"export PENSTOCK_URL={url}", "penstock jobs list --state buried", *shown, "penstock doctor"]
    say(console, f"Kept in {folder}. To look at it:")
    say(console, "\n".join(f"  {command}" for command in [*commands, f"rm -r {folder}"]))


def plural(number: int, what: str) -> str:
    """Write a number of things."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
