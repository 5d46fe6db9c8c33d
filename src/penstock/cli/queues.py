"""`penstock queues`."""

from collections.abc import Mapping

import click

from penstock.checks import check_queue
from penstock.cli.access import existing_store, reaches_store, store
from penstock.cli.documents import queue_document
from penstock.cli.screen import Cell, Column, as_json, show_table, styled, write_json
from penstock.cli.steering import DELETE, alter_matching, report
from penstock.client import Penstock
from penstock.engine import Delete, Filter, QueueInfo
from penstock.model.durations import spell
from penstock.model.errors import TaskInvalid
from penstock.model.states import WAITING, State

__all__ = ["queues"]

_MOST_LISTED = 10
_COUNTED = (State.SCHEDULED, State.READY, State.RUNNING, State.BURIED)


@click.group()
def queues() -> None:
    """List, pause, limit and empty queues."""


@queues.command("list")
@reaches_store
@as_json
@click.pass_context
def list_queues(ctx: click.Context, as_json: bool) -> None:
    """List every queue that has been used or set.

    With --json, one document: {"queues": [...]}.
    """
    with existing_store(ctx) as app:
        found, counts = app.engine.queues(), app.counts()
    if as_json:
        write_json({"queues": [queue_document(queue, dict(counts.get(queue.name, {}))) for queue in found]})
        return
    if not found:
        click.echo("No queue has been used yet.", err=True)
        return
    columns = (
        Column("queue"),
        Column("switch", whole=True),
        *(Column(str(state), whole=True, right=True) for state in _COUNTED),
        Column("limit", whole=True, right=True),
        Column("ended/s", whole=True, right=True),
        Column("oldest", whole=True, right=True),
    )
    show_table(columns, [_row(queue, counts.get(queue.name, {})) for queue in found])


def _row(queue: QueueInfo, states: Mapping[str, int]) -> tuple[Cell, ...]:
    """`oldest` is how long the ready job that stands first in line has stood there."""
    return (
        queue.name,
        styled("paused", "yellow") if queue.paused else "open",
        *(f"{states.get(state, 0):,}" for state in _COUNTED),
        "none" if queue.max_jobs is None else f"{queue.max_jobs:,}",
        f"{queue.rate:,.1f}",
        "" if queue.oldest_ms is None else spell(queue.oldest_ms / 1000),
    )


@queues.command()
@click.argument("name")
@reaches_store
@click.pass_context
def pause(ctx: click.Context, name: str) -> None:
    """Let no more jobs of a queue start; new ones are still accepted.

    A queue that is not known yet is paused too, with a warning, as its first job may still come.
    """
    with store(ctx) as app:
        _warn_if_unknown(app, name)
        app.queue(name).pause()
    click.echo(f"Queue {name} is paused; `penstock queues resume {name}` lets it go on.")


@queues.command()
@click.argument("name")
@reaches_store
@click.pass_context
def resume(ctx: click.Context, name: str) -> None:
    """Let the jobs of a queue start again."""
    with store(ctx) as app:
        _warn_if_unknown(app, name)
        app.queue(name).resume()
    click.echo(f"Queue {name} is open.")


@queues.command()
@click.argument("name")
@click.argument("limit", metavar="N|none")
@reaches_store
@click.pass_context
def limit(ctx: click.Context, name: str, limit: str) -> None:
    """Bound the unfinished jobs of a queue: beyond, enqueueing is refused.

    `none` lifts the bound, and 0 refuses every new job.
    """
    bound = None if limit.lower() == "none" else _number(limit)
    with store(ctx) as app:
        _warn_if_unknown(app, name)
        queue = app.queue(name).limit(max_jobs=bound)
    click.echo(f"Queue {name} {_bound_told(bound)}; it has {queue.unfinished:,}.")


@queues.command()
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@reaches_store
@as_json
@click.pass_context
def purge(ctx: click.Context, name: str, yes: bool, as_json: bool) -> None:
    """Delete all jobs of a queue that wait: ready, scheduled and blocked ones. It cannot be undone."""
    which = Filter(queue=check_queue(name), states=WAITING)
    with existing_store(ctx) as app:
        tally = alter_matching(app.engine, DELETE, Delete(), which, yes)
    report(tally, DELETE, as_json)


def _bound_told(bound: int | None) -> str:
    if bound is None:
        return "takes any number of jobs"
    return f"takes up to {bound:,} unfinished jobs" if bound else "takes no new jobs: enqueueing is refused"


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise TaskInvalid(f"{text!r} is no limit; give a whole number of jobs, or none.")
    return int(text)


def _warn_if_unknown(app: Penstock, name: str) -> None:
    """A switch may be set before the first job comes, but it may also be a slip of the pen."""
    known = sorted({queue.name for queue in app.engine.queues()} | {task.queue for task in app.tasks.values()})
    if check_queue(name) in known:
        return
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    listed = f" Known: {', '.join(known[:_MOST_LISTED])}." if known else ""
    click.echo(f"penstock: queue {name} has had no job and no setting so far.{meant}{listed}", err=True)
