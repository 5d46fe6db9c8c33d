"""`penstock backup` and `penstock restore`."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import click

from penstock.cli.access import existing_store, reaches_store, store
from penstock.cli.exits import FAILED
from penstock.cli.move import told_refusals
from penstock.cli.screen import as_json, moment, number, progress_bar, write_json
from penstock.engines.open import is_there, without_password
from penstock.model.errors import EngineUnavailable
from penstock.moving import BackupInvalid, Contents, Kept, Tally, back_up, examine_backup, restore
from penstock.version import VERSION

__all__ = ["backup_command", "restore_command"]


@click.command("backup")
@click.argument("file", metavar="FILE|-")
@reaches_store
@as_json
@click.pass_context
def backup_command(ctx: click.Context, file: str, as_json: bool) -> None:
    """Write all jobs and queue switches to FILE as JSON lines, or to stdout for the word -.

    Workers may go on. Every job that is stored throughout is in the backup once, as it was when it was read; not all
    are read at the same moment. FILE is written beside its place and takes it when it is whole, readable by its owner
    alone. With --json, one document: {"jobs": ..., "running": ..., "queues": ...}, on stderr for the word -.
    """
    with existing_store(ctx) as app:
        total = sum(sum(states.values()) for states in app.counts().values())
        with _written(file) as write, progress_bar("Backed up", total) as advance:
            kept = back_up(app.engine, write, version=VERSION, taken_ms=round(time.time() * 1000), advance=advance)
    if as_json:
        document = {"jobs": kept.jobs, "running": kept.running, "queues": kept.queues}
        write_json(document, err=file == "-")
    else:
        click.echo(_told_backup(kept, file), err=file == "-")


@click.command("restore")
@click.argument("file", metavar="FILE|-")
@click.option("--dry-run", is_flag=True, help="Examine the backup, say what it holds, and change nothing.")
@reaches_store
@as_json
@click.pass_context
def restore_command(ctx: click.Context, file: str, dry_run: bool, as_json: bool) -> None:
    """Load a backup into the store, from FILE or, for the word -, from stdin.

    The whole backup is examined first. Jobs that the store knows stay as they are there, so that doing it again
    changes nothing. Jobs that were running when they were backed up are ready again and suspect, as after the loss of
    their host, or buried if they may start only once. With --json, one document: {"restored": ..., ...}.
    """
    with store(ctx) as app, _opened(file) as backup:
        contents = _examined(backup, file)
        url = app.settings.url
        if dry_run:
            tally = Tally()
        else:
            try:
                with progress_bar("Restored", contents.jobs) as advance:
                    tally = restore(backup, contents, app.engine, advance=advance)
            except (KeyboardInterrupt, EngineUnavailable):
                click.echo("What was restored stays. Run it again for the rest: jobs that are there stay so.", err=True)
                raise
    if as_json:
        write_json(_document(contents, tally, dry_run))
    elif dry_run:
        makes = "" if is_there(url) else ", which would be made"
        click.echo(f"{_told_contents(contents)} It would go into {without_password(url)}{makes}.")
    else:
        _tell(contents, tally, without_password(url))
    if tally.total().left:
        ctx.exit(FAILED)


def _examined(backup: BinaryIO, file: str) -> Contents:
    try:
        return examine_backup(backup)
    except BackupInvalid as fault:
        raise BackupInvalid(f"{'stdin' if file == '-' else file}: {fault}") from None


# -- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def _written(file: str) -> Iterator[Callable[[bytes], object]]:
    """Give where lines go: stdout, or a draft beside the file, which takes its place when all is on the disk."""
    if file == "-":
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    place = Path(file)
    descriptor, name = _draft(place)
    try:
        with os.fdopen(descriptor, "wb") as draft:
            yield draft.write
            draft.flush()
            os.fsync(draft.fileno())
        os.replace(name, place)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise click.ClickException(
            f"{place} cannot be written: {error.strerror}. What was there before is as it was."
        ) from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(place.parent)


def _draft(place: Path) -> tuple[int, str]:
    """Make a file that its owner alone can read, in the folder where the backup is to stand."""
    if place.is_dir():
        raise click.ClickException(f"{place} is a folder; name a file in it, as {place / 'penstock.backup'}.")
    try:
        return tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    except OSError as error:
        raise click.ClickException(f"{place} cannot be written: {error.strerror}.") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """Open a backup; what comes from stdin is put aside first, because it is read more than once."""
    if file != "-":
        try:
            with open(file, "rb") as opened:
                yield opened
        except OSError as error:
            raise click.ClickException(f"{file} cannot be read: {error.strerror}.") from error
        return
    spool: IO[Any]
    with tempfile.TemporaryFile() as spool:
        while piece := sys.stdin.buffer.read(1 << 20):
            spool.write(piece)
        yield spool


# -- words ------------------------------------------------------------------------------------------------------------


def _told_backup(kept: Kept, file: str) -> str:
    where = "" if file == "-" else f" to {file}"
    queues = f" and the switches of {number(kept.queues, 'queue')}" if kept.queues else ""
    running = f" {_told_running(kept.running)}" if kept.running else ""
    return f"Backed up {number(kept.jobs, 'job')}{queues}{where}.{running}"


def _told_running(count: int) -> str:
    was = "1 job was" if count == 1 else f"{count:,} jobs were"
    return f"{was} running; what becomes of them is not in the backup, and a restored copy starts them again."


def _told_contents(contents: Contents) -> str:
    running = f", {contents.running:,} of them running then," if contents.running else ""
    queues = f" and the switches of {number(contents.queues, 'queue')}" if contents.queues else ""
    return (
        f"A sound backup of {number(contents.jobs, 'job')}{running}{queues}, taken {moment(contents.header.taken_ms)} "
        f"from a {contents.header.kind} store."
    )


def _tell(contents: Contents, tally: Tally, url: str) -> None:
    total = tally.total()
    known = f"; {total.there:,} known there stay as they are" if total.there else ""
    refused = f"; {total.left:,} refused" if total.left else ""
    click.echo(f"Restored {total.moved:,} of {number(total.found, 'job')} into {url}{known}{refused}.")
    if contents.running:
        click.echo(_told_running(contents.running), err=True)
    told_refusals(tally)


def _document(contents: Contents, tally: Tally, dry_run: bool) -> dict[str, object]:
    total = tally.total()
    return {
        "dry_run": dry_run,
        "taken_at": moment(contents.header.taken_ms),
        "kind": contents.header.kind,
        "version": contents.header.version,
        "jobs": contents.jobs,
        "running": contents.running,
        "queues": contents.queues,
        "restored": total.moved,
        "known": total.there,
        "refused": total.left,
        "refusals": [{"id": one.id, "queue": one.queue, "why": one.why} for one in tally.refusals],
    }
