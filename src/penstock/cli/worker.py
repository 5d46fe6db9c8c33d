"""`penstock worker` and `penstock dev`."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from penstock.cli.access import reaches_store, settings

__all__ = ["dev", "worker"]

F = TypeVar("F", bound=Callable[..., Any])


def _works(command: F) -> F:
    """Give a command the options of a worker. Values are read by the settings, which tell all faults at once."""
    options = (
        click.option("-Q", "--queues", metavar="A,B", help="Queues in order, or by weight: mail:5,default:1. [all]"),
        click.option("--slots", metavar="N", help="Threads for plain functions, in each process. [8]"),
        click.option("--coroutines", metavar="N", help="Coroutines at once, in each process. [100]"),
        click.option("--children", metavar="N", help="Children of the process lane, for each process. [2]"),
        click.option("--lease", metavar="TIME", help="Silence after which jobs are handed on. [30s]"),
        click.option("--when-unfit", metavar="WHAT", help="What an unfit worker does: exit or wait. [exit]"),
        click.option("--health-period", metavar="TIME", help="How often health checks run. [30s]"),
        click.option("--max-jobs", metavar="N", help="Restart a process after so many jobs."),
        click.option("--max-memory", metavar="SIZE", help="Restart a process that uses more, as 512M."),
        click.option("--start-timeout", metavar="TIME", help="How long a process may import the application. [2m]"),
        click.option("--shutdown-timeout", metavar="TIME", help="How long running jobs may finish. [25s]"),
        click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error. [info]"),
        click.option("--log-format", metavar="FORM", help="text or json. [text]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@reaches_store
@click.option("--processes", metavar="N", help="Processes that run jobs. [CPUs]")
@_works
@click.option("--burst", is_flag=True, default=None, help="End when there is nothing left that it can do.")
@click.option("--reload", is_flag=True, default=None, help="Restart when a source file changes.")
@click.pass_context
def worker(ctx: click.Context, /, **given: Any) -> None:
    """Run jobs until told to stop.

    Ctrl-C or SIGTERM finishes what runs; a second one gives it back at once. SIGTSTP stops taking jobs, SIGHUP replaces
    the processes one by one, SIGTTIN writes all stacks to the log. The number of jobs at once is processes times
    (slots + coroutines + children).

    Told to stop, it ends at most 2 s after --shutdown-timeout: jobs that still run then are interrupted and given back
    free of charge, and a process that does not yield within 1 s is killed.

    With --burst the exit status is 0 even if jobs are left that this worker cannot run; the log says which and why.
    """
    _run(ctx, given)


@click.command()
@reaches_store
@_works
@click.pass_context
def dev(ctx: click.Context, /, **given: Any) -> None:
    """Run jobs while you write them: one process, restarted when a source file below this folder changes."""
    from pathlib import Path

    given = {"processes": 1, "reload": True, **given}
    click.echo(
        f"penstock dev: one process; it restarts when a module below {Path.cwd()} changes. Ctrl-C ends it.", err=True
    )
    _run(ctx, given)


def _run(ctx: click.Context, given: dict[str, Any]) -> None:
    found = settings(ctx, **given)
    from penstock.worker.entry import run

    ctx.exit(run(found))
