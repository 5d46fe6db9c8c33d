"""`penstock health`."""

import click
from msgspec import Struct

from penstock.cli.access import by_default, existing_store, reaches_store
from penstock.cli.exits import FAILED
from penstock.cli.screen import as_json, number, write_json
from penstock.cli.words import duration
from penstock.client import Penstock
from penstock.dependencies import tasks_held_up
from penstock.model.durations import spell
from penstock.model.errors import EngineError
from penstock.model.states import State
from penstock.serving import SILENT_AFTER_S, live_workers, silence, silent, unserved

__all__ = ["health"]


class Health(Struct):
    """What a probe wants to know. `faults` says what is wrong, empty if nothing is.

    Attributes:
        unserved: how many of the ready jobs no live worker would take.
    """

    store: str = "unreachable"
    workers: int = 0
    running: int = 0
    ready: int = 0
    unserved: int = 0
    buried: int = 0
    oldest_ready_ms: int | None = None
    faults: list[str] = []


@click.command()
@click.option("--max-age", type=duration, help="A ready job that waits longer in an open queue is a fault.")
@click.option(
    "--silent-after",
    type=duration,
    default=spell(SILENT_AFTER_S),
    show_default=True,
    help="A worker that runs nothing although a job it would take has been ready for longer is a fault.",
)
@click.option("--min-workers", type=click.IntRange(min=0), default=1, show_default=True, help="Fewer are a fault.")
@reaches_store
@as_json
@click.pass_context
def health(ctx: click.Context, max_age: float | None, silent_after: float, min_workers: int, as_json: bool) -> None:
    """Say in one line whether the store answers, workers live, and work goes on; exit status 0 or 1.

    With --json, one document: {"healthy": true, "store": ..., "workers": ..., "faults": [...], ...}.
    """
    found, default = Health(), ""
    try:
        with existing_store(ctx) as app:
            found, default = _look(app, silent_after), by_default(app)
            default = default and f"; in {app.settings.url}{default}"
            found.faults += _faults(found, max_age, min_workers)
    except EngineError as error:
        found.faults.append(str(error))
    if as_json:
        write_json({"healthy": not found.faults, **{name: getattr(found, name) for name in found.__struct_fields__}})
    else:
        click.echo(_line(found) + default)
    if found.faults:
        ctx.exit(FAILED)


def _look(app: Penstock, silent_after_s: float) -> Health:
    workers, queues, by_task = app.workers(), app.engine.queues(), app.engine.counts()
    without = unserved(workers, by_task)
    counts = app.counts().values()
    oldest = [queue.oldest_ms for queue in queues if queue.oldest_ms is not None and not queue.paused]
    return Health(
        store=app.engine.describe().url,
        workers=len(live_workers(workers)),
        running=sum(states["running"] for states in counts),
        ready=sum(states["ready"] for states in counts),
        unserved=sum(one.states[State.READY] for one in without),
        buried=sum(states["buried"] for states in counts),
        oldest_ready_ms=max(oldest, default=None),
        faults=[
            f"worker {silence(info, queue)}"
            for info, queue in silent(workers, by_task, queues, silent_after_s, tasks_held_up(app.breakers()))
        ],
    )


def _faults(found: Health, max_age_s: float | None, min_workers: int) -> list[str]:
    faults = []
    if found.workers < min_workers:
        faults.append(f"{found.workers} of at least {min_workers} workers live")
    if max_age_s is not None and (found.oldest_ready_ms or 0) > max_age_s * 1000:
        faults.append(f"a ready job waits for {spell((found.oldest_ready_ms or 0) / 1000)}, over {spell(max_age_s)}")
    return faults


def _line(found: Health) -> str:
    if found.store == "unreachable":
        return f"unhealthy: {'; '.join(found.faults)}"
    details = [] if found.oldest_ready_ms is None else [f"oldest {spell(found.oldest_ready_ms / 1000)}"]
    if found.unserved and found.workers:
        details.append(f"{found.unserved:,} that no live worker takes")
    ready = f"{found.ready:,} ready" + (f" ({', '.join(details)})" if details else "")
    jobs = f"{found.running:,} running, {ready}, {found.buried:,} buried"
    told = f"{number(found.workers, 'worker')}, {jobs}"
    return f"unhealthy: {'; '.join(found.faults)}: {told}" if found.faults else f"healthy: {told}"
