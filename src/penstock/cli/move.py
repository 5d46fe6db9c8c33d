"""`penstock move`."""

import click

from penstock.cli.exits import FAILED
from penstock.cli.screen import Column, as_json, number, progress_bar, show_table, write_json
from penstock.client import Penstock
from penstock.engines.open import is_there, without_password
from penstock.model.errors import EngineDown, EngineUnavailable, SettingsInvalid
from penstock.moving import Mover, Tally, survey

__all__ = ["move", "told_refusals"]


@click.command()
@click.argument("from_url", metavar="FROM_URL")
@click.argument("to_url", metavar="TO_URL")
@click.option("--history", is_flag=True, help="Also move jobs that have ended, with their results.")
@click.option("--wait", is_flag=True, help="Wait for jobs that run, and move those that are to run again.")
@click.option(
    "--resume",
    is_flag=True,
    help="Move nothing more: finish what is on its way, and set the queues of FROM as they were before.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be moved, and change nothing.")
@as_json
@click.pass_context
def move(
    ctx: click.Context,
    from_url: str,
    to_url: str,
    history: bool,
    wait: bool,
    resume: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Move waiting, scheduled and buried jobs and the switches of queues to another store.

    The queues of FROM are paused and stay so. Jobs that run there are left to end there. A move that was interrupted
    or killed is finished by the same command; each job is in one of the two stores, and runs once. With --json, one
    document: {"found": ..., "moved": ..., "already_there": ..., "left": ..., "running": ..., "queues": [...]}.
    """
    if resume and (wait or history or dry_run):
        raise click.UsageError("--resume moves nothing; give it alone.", ctx)
    _check(from_url, to_url)
    resumed: tuple[str, ...] = ()
    if dry_run:
        tally = _survey(from_url, to_url, history)
    else:
        tally, resumed = _move(from_url, to_url, history, wait, resume)
    if as_json:
        write_json(_document(tally, resumed, dry_run))
    else:
        _tell(tally, without_password(from_url), without_password(to_url), dry_run, resume)
    if tally.total().left:
        ctx.exit(FAILED)


def _survey(from_url: str, to_url: str, history: bool) -> Tally:
    """Count what would be moved, after the checks that a move begins with."""
    with Penstock(from_url) as source, Penstock(to_url) as target:
        if is_there(to_url):
            Mover(source.engine, target.engine)
        return survey(source.engine, history=history)


def _move(from_url: str, to_url: str, history: bool, wait: bool, resume: bool) -> tuple[Tally, tuple[str, ...]]:
    with Penstock(from_url) as source, Penstock(to_url) as target:
        total = 0 if resume else survey(source.engine, history=history).total().found
        with progress_bar("Moved", total) as advance:
            mover = Mover(source.engine, target.engine, history=history, advance=advance)
            try:
                return mover.give_up() if resume else (mover.run(wait=_Waiting() if wait else None), ())
            except (KeyboardInterrupt, EngineUnavailable):
                click.echo(
                    "The move is not finished. The same command finishes it; no job is lost or doubled.", err=True
                )
                raise


class _Waiting:
    """Says how many jobs are waited for, each time their number changes."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, running: int) -> None:
        if running != self._told:
            jobs = "1 running job" if running == 1 else f"{running:,} running jobs"
            click.echo(f"Waiting for {jobs} of the old store …", err=True)
        self._told = running


def _check(from_url: str, to_url: str) -> None:
    for url in (from_url, to_url):
        if url.startswith("memory:"):
            raise SettingsInvalid([f"{url} is private to each process; there is nothing to move from or to it."])
    if not is_there(from_url):
        raise EngineDown(f"There is no store at {without_password(from_url)} to move jobs from. Check FROM_URL.")
    is_there(to_url)  # a wrong URL is told before anything is paused


# -- words ------------------------------------------------------------------------------------------------------------


def _tell(tally: Tally, source: str, target: str, dry_run: bool, resume: bool) -> None:
    total = tally.total()
    if total.found:
        _show(tally, dry_run)
    if dry_run:
        click.echo(f"{number(total.found, 'job')} of {source} would be moved to {target}.")
    elif resume:
        click.echo(f"The queues of {source} are set as they were before the move.")
    elif not total.found:
        click.echo(f"Nothing to move: no job waits or is buried in {source}.")
    else:
        click.echo(f"{total.moved:,} of {number(total.found, 'job')} moved to {target}.")
    told_refusals(tally)
    _tell_rest(tally, source, dry_run or resume)


def _show(tally: Tally, dry_run: bool) -> None:
    names = ["found"] if dry_run else ["found", "moved", "already there", "left"]
    columns = (Column("queue"), *(Column(name, whole=True, right=True) for name in (*names, "running")))
    rows = []
    for queue, line in sorted(tally.queues.items()):
        counts = [line.found] if dry_run else [line.found, line.moved, line.there, line.left]
        if any(counts) or tally.running[queue]:
            rows.append((queue, *(f"{count:,}" for count in (*counts, tally.running[queue]))))
    show_table(columns, rows)


def _tell_rest(tally: Tally, source: str, is_silent: bool) -> None:
    """Say what is still to do, on stderr: for jobs that run, and for programs that enqueue where nothing starts."""
    running = tally.running.total()
    if running:
        run = "runs" if running == 1 else "run"
        click.echo(
            f"{number(running, 'job')} still {run} in {source}. Let its workers end them, then run the same command "
            "again, or give --wait.",
            err=True,
        )
    if tally.held and not is_silent:
        click.echo(
            f"The queues of {source} stay paused, so that nothing starts there. Let programs that enqueue and workers "
            "use the new store, then run the same command again for what they added meanwhile. With --resume the "
            "queues go on as before the move.",
            err=True,
        )


def told_refusals(tally: Tally) -> None:
    """Say on stderr which jobs were left and why."""
    for one in tally.refusals:
        click.echo(f"{one.id} in queue {one.queue} was left: {one.why}", err=True)
    more = tally.total().left - len(tally.refusals)
    if more > 0:
        click.echo(f"{more:,} more were left.", err=True)


def _document(tally: Tally, resumed: tuple[str, ...], dry_run: bool) -> dict[str, object]:
    total = tally.total()
    return {
        "dry_run": dry_run,
        "found": total.found,
        "moved": total.moved,
        "already_there": total.there,
        "left": total.left,
        "running": tally.running.total(),
        "queues": [
            {
                "name": name,
                "found": line.found,
                "moved": line.moved,
                "already_there": line.there,
                "left": line.left,
                "running": tally.running[name],
            }
            for name, line in sorted(tally.queues.items())
        ],
        "refusals": [{"id": one.id, "queue": one.queue, "why": one.why} for one in tally.refusals],
        "held": tally.held,
        "resumed": resumed,
    }
