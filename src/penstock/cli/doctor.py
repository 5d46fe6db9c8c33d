"""`penstock doctor`."""

import platform
import time
from collections import Counter
from collections.abc import Iterator

import click
from msgspec.structs import replace

from penstock.cli.access import by_default, reaches_store, store
from penstock.cli.exits import FAILED
from penstock.cli.outbox import examine_outbox
from penstock.cli.screen import ago, as_json, microseconds, number, show, tame, write_json
from penstock.client import Penstock
from penstock.dependencies import tasks_held_up
from penstock.engine import Counts, EngineInfo, Finding, QueueInfo, WorkerView
from penstock.engines.open import examine, without_password
from penstock.model.breaker import Breaker
from penstock.model.durations import spell
from penstock.model.errors import EngineError
from penstock.model.record import add_up, dearer_than_work
from penstock.model.states import State
from penstock.promises import promise
from penstock.records import quarantined, read_records
from penstock.serving import SILENT_AFTER_S, is_gone, live_workers, silence, silent, unserved
from penstock.version import VERSION

__all__ = ["doctor"]

#: How many tasks without a worker are told one by one.
_MOST_TOLD = 5
_DURABILITY = "durability"
_STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}


@click.command()
@click.option("--deep", is_flag=True, help="Also read the whole store for damage.")
@reaches_store
@as_json
@click.pass_context
def doctor(ctx: click.Context, deep: bool, as_json: bool) -> None:
    """Examine the store and everything around it; say for each thing what was found and the way out.

    Nothing is changed. The exit status is 1 if there are faults; warnings alone leave it 0.

    With --json, one document: {"url": ..., "findings": [{"subject", "verdict", "found", "remedy"}, ...]}.
    """
    with store(ctx) as app:
        url = without_password(app.settings.url)
        findings = list(_examine(app, deep))
    if as_json:
        write_json({"url": url, "findings": findings})
    else:
        _show(url, findings)
    if any(finding.verdict == "fault" for finding in findings):
        ctx.exit(FAILED)


def _examine(app: Penstock, deep: bool) -> Iterator[Finding]:
    yield Finding("penstock", "ok", f"{VERSION} on Python {platform.python_version()}, {platform.platform()}")
    if default := by_default(app):
        yield Finding("url", "ok", f"{app.settings.url}{default}")
    yield from examine_outbox(app)
    outside = examine(app.settings.url, deep=deep)
    yield from map(_in_words, outside.findings)
    if not outside.exists or outside.schema != outside.known_schema:
        return  # opening it would make it, or bring it to another schema
    if any(finding.subject == "lock" and finding.verdict == "fault" for finding in outside.findings):
        return  # it would only wait in vain
    try:
        yield from _inside(app, durable=any(finding.subject == _DURABILITY for finding in outside.findings))
    except EngineError as error:
        yield Finding("store", "fault", str(error), "Mend the faults above, then examine it again.")


def _inside(app: Penstock, *, durable: bool) -> Iterator[Finding]:
    """Find what the engine tells; `durable` says that its durability was told already."""
    engine = app.engine
    workers, counts = engine.workers(), engine.counts()
    yield from _described(engine.describe(), durable=durable)
    yield from _workers(workers)
    yield from _unserved(workers, counts)
    held_up = app.breakers()
    yield from _silent(workers, counts, engine.queues(), held_up)
    yield from _breakers(held_up)
    yield from _paused(app)
    yield _buried(counts)
    yield from _apart(app)
    yield from _dear(app)


def _in_words(finding: Finding) -> Finding:
    """Say what a class of durability means."""
    level, rest = finding.found[:2], finding.found[2:]
    return replace(finding, found=promise(level) + rest) if finding.subject == _DURABILITY else finding


def _described(info: EngineInfo, *, durable: bool) -> Iterator[Finding]:
    if not durable:
        yield Finding(_DURABILITY, "ok", promise(info.durability))
    if info.late_results:
        yield Finding("late results", "ok", f"{info.late_results:,} refused so far")


def _workers(workers: list[WorkerView]) -> Iterator[Finding]:
    live = live_workers(workers)
    if live:
        told = ", ".join(f"pid {info.pid} on {info.host}" for info in live[:5])
        more = f" and {len(live) - 5} more" if len(live) > 5 else ""
        yield Finding("workers", "ok", f"{len(live)} live: {told}{more}")
    else:
        yield Finding("workers", "warning", "none is alive", "Start one with `penstock worker -A module:app`.")
    for worker in workers:
        if worker.lease_left_ms == 0:
            held = number(worker.running, "job")
            found = f"the lease of pid {worker.info.pid} on {worker.info.host} has lapsed; it holds {held}"
            remedy = "Its jobs are handed on as soon as any worker runs."
            yield Finding("workers", "warning", found, remedy)
        elif is_gone(worker.info):
            held, left = number(worker.running, "job"), spell(worker.lease_left_ms / 1000)
            found = f"pid {worker.info.pid} on {worker.info.host} is gone without a word; it held {held}"
            remedy = f"Its lease lapses in {left}; then any worker that runs takes its jobs over."
            yield Finding("workers", "warning", found, remedy)


def _unserved(workers: list[WorkerView], counts: list[Counts]) -> Iterator[Finding]:
    """Find ready jobs that no live worker would take."""
    live, waiting = live_workers(workers), unserved(workers, counts)
    if not waiting:
        yield Finding("tasks", "ok", "every ready job has a live worker that knows its task")
    elif not live:
        yield Finding("tasks", "warning", f"{_ready(waiting)} with nobody to run them", "Start a worker.")
        return
    for one in waiting[:_MOST_TOLD]:
        known = any(one.task in info.tasks for info in live)
        lack = f"serves queue {one.queue!r}" if known else f"knows task {one.task!r}"
        remedy = f"Start a worker with -Q {one.queue}." if known else "Start a worker of the application that has it."
        yield Finding("tasks", "warning", f"{_ready([one])} of {one.task}: no live worker {lack}", remedy)
    if more := waiting[_MOST_TOLD:]:
        found = f"{_ready(more)} of {number(len(more), 'more task')} that no live worker takes"
        yield Finding("tasks", "warning", found, "`penstock jobs list --state ready` shows them.")


def _silent(
    workers: list[WorkerView], counts: list[Counts], queues: list[QueueInfo], breakers: dict[str, Breaker]
) -> Iterator[Finding]:
    """Find workers that take nothing although they could."""
    for info, queue in silent(workers, counts, queues, SILENT_AFTER_S, tasks_held_up(breakers)):
        remedy = "Read its log, and restart it: a worker that can reach the store takes a ready job at once."
        yield Finding("workers", "fault", silence(info, queue), remedy)


def _breakers(breakers: dict[str, Breaker]) -> Iterator[Finding]:
    now_ms = time.time_ns() // 1_000_000
    for name, breaker in breakers.items():
        tasks = ", ".join(breaker.tasks) or "no task so far"
        found = f"{name} is out of order since {ago(breaker.opened_ms, now_ms)}, {tasks} waits for it: {breaker.reason}"
        remedy = f"Mend it; one job tries again now and then. `penstock breakers close {name}` lets all try at once."
        if breaker.probe_ms is None:
            remedy = f"It was opened by hand; `penstock breakers close {name}` lets its tasks go on."
        yield Finding("breakers", "warning", found, remedy)


def _apart(app: Penstock) -> Iterator[Finding]:
    for name, one in quarantined(app.engine).items():
        remedy = f"`penstock workers readmit {name}` ends it."
        yield Finding("workers", "warning", f"{name} is in quarantine: {one.reason}", remedy)


def _dear(app: Penstock) -> Iterator[Finding]:
    """Find tasks whose jobs cost more around their code than in it."""
    tasks = add_up(record.tasks for record in read_records(app.engine).values())
    for name, one in list(dearer_than_work(tasks).items())[:_MOST_TOLD]:
        ran_us, queue_us = one.means_us()
        took = microseconds(queue_us)
        found = f"jobs of {name} run for {microseconds(ran_us)}, and to fetch and deliver each takes {took}"
        several = max(2, round(10 * queue_us / max(ran_us, 1)))
        remedy = f"Call it as a function where its result is awaited, or let one job do {several:,} of them."
        yield Finding("overhead", "warning", found, remedy)


def _ready(counts: list[Counts]) -> str:
    return number(sum(one.states[State.READY] for one in counts), "ready job")


def _paused(app: Penstock) -> Iterator[Finding]:
    queues = app.engine.queues()
    for queue in queues:
        if queue.paused:
            oldest = "" if queue.oldest_ms is None else f", the oldest ready for {spell(queue.oldest_ms / 1000)}"
            found = f"{queue.name} is paused with {queue.unfinished:,} unfinished jobs{oldest}"
            yield Finding("queues", "warning", found, f"Run `penstock queues resume {queue.name}`.")
    if not any(queue.paused for queue in queues):
        yield Finding("queues", "ok", f"{len(queues)} in use, none paused")


def _buried(counts: list[Counts]) -> Finding:
    tasks: Counter[str] = Counter()
    for one in counts:
        tasks[one.task] += one.states.get(State.BURIED, 0)
    total = tasks.total()
    if not total:
        return Finding("buried", "ok", "no job is buried")
    worst = ", ".join(f"{number:,} of {task}" for task, number in tasks.most_common(5) if number)
    return Finding(
        "buried", "warning", f"{number(total, 'job')}: {worst}", "See them with `penstock jobs list --state buried`."
    )


def _show(url: str, findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    listed = Table.grid(padding=(0, 2))
    listed.add_column(no_wrap=True)
    listed.add_column(no_wrap=True)
    listed.add_column(overflow="fold")
    for finding in findings:
        listed.add_row(
            Text(finding.verdict, style=_STYLES[finding.verdict]), finding.subject, Text(tame(finding.found))
        )
        if finding.remedy and finding.verdict != "ok":
            listed.add_row("", "", Text(f"→ {finding.remedy}", style="dim"))
    show(Text(url, style="bold"))
    show(listed)
    counted = Counter(finding.verdict for finding in findings)
    click.echo(f"{number(counted['fault'], 'fault')}, {number(counted['warning'], 'warning')}.")
