"""`penstock workers`."""

import time

import click

from penstock.cli.access import existing_store, reaches_store, store
from penstock.cli.documents import worker_document
from penstock.cli.exits import FAILED
from penstock.cli.screen import Cell, Column, ago, as_json, microseconds, moment, number, show_table, styled, write_json
from penstock.engine import WorkerView
from penstock.model.durations import spell
from penstock.model.record import TaskRecord, add_up
from penstock.records import quarantined, read_records
from penstock.serving import is_gone

__all__ = ["workers"]


@click.group()
def workers() -> None:
    """List, drain, quarantine and evict workers; show what they did."""


@workers.command("list")
@reaches_store
@as_json
@click.pass_context
def list_workers(ctx: click.Context, as_json: bool) -> None:
    """List the workers that hold a lease.

    `penstock jobs show` names the worker of a running job by the first eight digits of its id.

    A worker of this machine whose process has ended is shown as gone: its jobs are handed on when its lease lapses.

    With --json, one document: {"workers": [...], "quarantine": [{"name", "reason", "since"}, ...]}, each worker with
    the ids of its processes.
    """
    with existing_store(ctx) as app:
        found, apart = app.workers(), quarantined(app.engine)
    if as_json:
        write_json(
            {
                "workers": [worker_document(worker) for worker in found],
                "quarantine": [
                    {"name": name, "reason": one.reason, "since": moment(one.since_ms)} for name, one in apart.items()
                ],
            }
        )
        return
    if not found:
        click.echo("No worker is alive. Start one with `penstock worker -A module:app`.", err=True)
    else:
        _show(found)
    for name, one in apart.items():
        click.echo(f"{name} is in quarantine: {one.reason} (`penstock workers readmit {name}` ends it)", err=True)


def _show(found: list[WorkerView]) -> None:
    now_ms = time.time_ns() // 1_000_000
    columns = (
        Column("worker", whole=True),
        "host",
        Column("pid", whole=True, right=True),
        "queues",
        Column("tasks", whole=True, right=True),
        Column("running", whole=True, right=True),
        Column("up", whole=True, right=True),
        Column("lease", whole=True, right=True),
        Column("", whole=True),
    )
    show_table(columns, [_row(worker, now_ms) for worker in found])
    if any(is_gone(worker.info) for worker in found):
        click.echo(
            "The process of a worker that is gone has ended without giving its jobs back; other workers take them over "
            "once its lease has lapsed.",
            err=True,
        )


def _row(worker: WorkerView, now_ms: int) -> tuple[Cell, ...]:
    info = worker.info
    return (
        info.id,
        info.host,
        str(info.pid),
        "all" if info.queues is None else ", ".join(info.queues),
        str(len(info.tasks)),
        f"{worker.running:,}",
        ago(worker.enrolled_ms, now_ms),
        spell(worker.lease_left_ms / 1000) if worker.lease_left_ms else styled("lapsed", "red"),
        _standing(worker),
    )


def _standing(worker: WorkerView) -> Cell:
    if is_gone(worker.info):
        return styled("gone", "red")
    if worker.drain:
        return styled("draining", "yellow")
    return styled(f"unfit: {worker.info.unfit}", "yellow") if worker.info.unfit else ""


@workers.command()
@click.argument("ids", nargs=-1, required=True, metavar="WORKER...")
@reaches_store
@click.pass_context
def drain(ctx: click.Context, ids: tuple[str, ...]) -> None:
    """Ask workers to finish what they have and end."""
    with existing_store(ctx) as app:
        known = app.engine.drain(ids)
    for id in known:
        click.echo(f"{id} finishes what it has and ends.")
    for id in ids:
        if id not in known:
            click.echo(f"No worker has the id {id!r}; `penstock workers list` shows them.", err=True)
    if len(known) < len(ids):
        ctx.exit(FAILED)


@workers.command()
@reaches_store
@as_json
@click.pass_context
def record(ctx: click.Context, as_json: bool) -> None:
    """Show what the workers did of late, task by task, and what it cost.

    `run` is how long a job's own code takes, `queue` how long its process is busy with fetching and delivering it, both
    on average. Workers tell it every --health-period, of the last five to ten minutes, and once more when they end.

    With --json, one document: {"tasks": [{"task", "done", "failed", "run_us", "queue_us"}, ...]}.
    """
    with existing_store(ctx) as app:
        tasks = sorted(add_up(one.tasks for one in read_records(app.engine).values()).items())
    if as_json:
        write_json({"tasks": [_task_document(name, one) for name, one in tasks]})
    elif not tasks:
        click.echo("No worker has told of any job in the last hour.", err=True)
    else:
        figures = [Column(name, whole=True, right=True) for name in ("done", "failed", "run", "queue")]
        show_table([Column("task"), *figures], [_task_row(name, one) for name, one in tasks])


def _task_document(name: str, one: TaskRecord) -> dict[str, object]:
    run_us, queue_us = one.means_us()
    return {"task": name, "done": one.done, "failed": one.failed, "run_us": run_us, "queue_us": queue_us}


def _task_row(name: str, one: TaskRecord) -> tuple[Cell, ...]:
    return (name, f"{one.done:,}", f"{one.failed:,}", *map(microseconds, one.means_us()))


@workers.command()
@click.argument("name", metavar="WORKER|HOST")
@click.option("--reason", default="put there by hand", show_default=True, help="What the worker says of it.")
@reaches_store
@click.pass_context
def quarantine(ctx: click.Context, name: str, reason: str) -> None:
    """Take a worker, or every worker on a host, out of service until it is readmitted.

    It finishes what it runs and claims no more; then it ends with status 4, or waits, as its --when-unfit says. A
    worker that starts on a host in quarantine is unfit too.
    """
    with store(ctx) as app:
        known = {one.info.id for one in app.workers()} | {one.info.host for one in app.workers()}
        app.quarantine(name, reason=reason)
    if name not in known:
        click.echo(f"penstock: no live worker has the id {name!r} or runs on such a host.", err=True)
    click.echo(f"{name} is in quarantine; `penstock workers readmit {name}` ends it.")


@workers.command()
@click.argument("name", metavar="WORKER|HOST")
@reaches_store
@click.pass_context
def readmit(ctx: click.Context, name: str) -> None:
    """End the quarantine of a worker or a host."""
    with existing_store(ctx) as app:
        known = app.readmit(name)
    click.echo(f"{name} may claim jobs again." if known else f"{name} was not in quarantine.", err=not known)
    if not known:
        ctx.exit(FAILED)


@workers.command()
@click.argument("id", metavar="WORKER")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@reaches_store
@click.pass_context
def evict(ctx: click.Context, id: str, yes: bool) -> None:
    """Take the jobs of a worker from it now, although it does not answer.

    Other workers have them at their next round. Code that still runs there is not stopped if the worker cannot be
    reached, but what it delivers is refused. The worker is in quarantine from then on.
    """
    with existing_store(ctx) as app:
        found = {one.info.id: one for one in app.workers()}.get(id)
        if found is None:
            click.echo(f"No worker has the id {id!r}; `penstock workers list` shows them.", err=True)
            ctx.exit(FAILED)
        held = number(found.running, "job")
        if not yes:
            click.confirm(f"Take {held} from pid {found.info.pid} on {found.info.host}?", abort=True, err=True)
        app.evict(id)
    click.echo(f"{id} has lost its lease with {held}; other workers take them over.")
