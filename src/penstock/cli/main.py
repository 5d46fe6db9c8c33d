"""`penstock`: the group of all commands, and the edge at which errors become messages and exit statuses."""

import errno
import os
import sys
from io import TextIOWrapper
from typing import Any

import click

from penstock.cli.access import reaches_store
from penstock.cli.exits import EPILOG, FAILED, INTERRUPTED, PIPE_CLOSED, exit_status
from penstock.cli.lazy import LazyGroup
from penstock.model.errors import PenstockError, SettingsInvalid
from penstock.version import VERSION

__all__ = ["cli", "main"]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class Root(LazyGroup):
    """The outermost group: what a command raises ends here, as one message without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
        except PenstockError as error:
            for told in error.faults if isinstance(error, SettingsInvalid) else (error,):
                click.echo(f"penstock: {told}", err=True)
            ctx.exit(exit_status(error))
        except click.UsageError:
            raise  # click shows how the command is used
        except click.ClickException as error:
            click.echo(f"penstock: {error.format_message()}", err=True)
            ctx.exit(FAILED)
        except (KeyboardInterrupt, click.Abort):
            click.echo("penstock: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            _silence_stdout()
            ctx.exit(PIPE_CLOSED)
        except OSError as error:
            if error.errno not in _NO_ROOM or error.filename is not None:
                raise
            _silence_stdout()
            click.echo(f"penstock: what this command writes has no place: {error.strerror}", err=True)
            ctx.exit(FAILED)
        return answer


def _tell_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"penstock {VERSION}")
        ctx.exit()


@click.group(
    cls=Root,
    commands_in={
        "worker": ("penstock.cli.worker:worker", "Run jobs."),
        "dev": ("penstock.cli.worker:dev", "Run jobs while you write them: restart when the source changes."),
        "demo": ("penstock.cli.demo:demo", "Show penstock at work on real files."),
        "enqueue": ("penstock.cli.enqueue:enqueue", "Enqueue a job and print its id."),
        "jobs": ("penstock.cli.jobs:jobs", "List, show and steer jobs."),
        "queues": ("penstock.cli.queues:queues", "List, pause, limit and empty queues."),
        "alerts": ("penstock.cli.alerts:alerts", "Show who is told of buried jobs, and whether that works."),
        "once": ("penstock.cli.once:once", "Say whether a side effect happened, when nobody else knows."),
        "workers": ("penstock.cli.workers:workers", "List, drain, quarantine and evict workers."),
        "breakers": ("penstock.cli.breakers:breakers", "List, open and close the breakers of dependencies."),
        "health": ("penstock.cli.health:health", "Say in one line whether all is well."),
        "doctor": ("penstock.cli.doctor:doctor", "Examine the store and everything around it."),
        "config": ("penstock.cli.config:config", "Show every setting, its value and where it came from."),
        "migrate": ("penstock.cli.migrate:migrate", "Bring the store to this version's schema."),
        "move": ("penstock.cli.move:move", "Move jobs and queue switches to another store."),
        "backup": ("penstock.cli.backup:backup_command", "Write all jobs to a file."),
        "restore": ("penstock.cli.backup:restore_command", "Load a backup into the store."),
        "bench": ("penstock.cli.bench:bench", "Measure penstock on this machine."),
    },
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_tell_version, help="Show the version."
)
@reaches_store
def cli() -> None:
    """A job queue that begins as one SQLite file.

    The options -A and --url may stand before the command or after it. Every option of a worker can also be set in
    the environment (PENSTOCK_SLOTS=4) or in penstock.toml; `penstock config` shows what holds.
    """


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may know fewer characters than a job does
    cli.main(prog_name="penstock")


def _silence_stdout() -> None:
    """Let what is still buffered go nowhere, so that nothing complains at the end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:  # a stdout that is no file has no descriptor to lead elsewhere
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
