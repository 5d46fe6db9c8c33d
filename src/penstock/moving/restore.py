"""A backup read back into a store: examined whole, then loaded; what is known there stays as it is."""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.engine import MOST_AT_ONCE, Engine
from penstock.model.errors import PenstockError
from penstock.model.job import HISTORY_KEPT, Claim, ErrorInfo, Fence, Job
from penstock.model.outcome import Ending, Outcome
from penstock.model.settle import settle
from penstock.model.states import State
from penstock.moving.backup import FORMAT, BackupInvalid, Header, Switches, read_job
from penstock.moving.pages import load_each
from penstock.moving.tally import Tally

__all__ = ["Contents", "examine_backup", "restore"]

_MOST_NAMED = 10
_LOST = "it was running when its store was backed up"
_INSTEAD = "Nothing was restored; use another backup."


class Contents(Struct):
    """What a sound backup holds."""

    header: Header
    jobs: int = 0
    queues: int = 0
    running: int = 0


def restore(
    file: BinaryIO, contents: Contents, engine: Engine, *, advance: Callable[[int], object] = lambda _: None
) -> Tally:
    """Load a backup into a store. Doing it again changes nothing more.

    Jobs that wait are loaded before those that have ended, so that they find the keys that they hold. Jobs that ran
    when they were read are settled as lost: they are ready again and suspect, or buried if they may start only once.

    Args:
        file: what `back_up` wrote, from where one can go back to its beginning.
        contents: what `examine_backup` said of it.
        advance: is told how many jobs were dealt with, after each page.

    Returns:
        What became of the jobs; `there` counts those that the store knew, which stay as they are there.
    """
    tally = Tally()
    _set_queues(engine, file)
    for ended in (False, True):
        jobs = (job for job in _jobs(file, contents.header.taken_ms) if job.state.is_final is ended)
        while page := list(islice(jobs, MOST_AT_ONCE)):
            _load(engine, page, tally)
            advance(len(page))
    return tally


def _load(engine: Engine, page: list[Job], tally: Tally) -> None:
    tally.find(page)
    for job, answer in zip(page, load_each(engine, page), strict=True):
        if isinstance(answer, PenstockError):
            tally.leave(job, str(answer))
        elif answer.existing:
            tally.know(job)
        else:
            tally.move(job)


def _set_queues(engine: Engine, file: BinaryIO) -> None:
    """Set switches where none is set."""
    there = {queue.name: queue for queue in engine.queues()}
    for line in _lines(file):
        if "queue" in line:
            switches = msgspec.convert(line, Switches)
            known = there.get(switches.queue)
            if known is None or not (known.paused or known.max_jobs is not None):
                engine.alter_queue(switches.queue, paused=switches.paused, max_jobs=switches.max_jobs)


def _jobs(file: BinaryIO, taken_ms: int) -> Iterator[Job]:
    for line in _lines(file):
        if "job" in line:
            job = read_job(line["job"])
            yield _lost(job, taken_ms) if job.state is State.RUNNING else job


def _lines(file: BinaryIO) -> Iterator[dict[str, Any]]:
    file.seek(0)
    for line in file:
        yield msgspec.json.decode(line)


def _lost(job: Job, taken_ms: int) -> Job:
    """Settle a job that ran as lost, with the policy that is stored with it: nobody saw what became of it."""
    claim = Claim(
        id=job.id,
        fence=Fence(job.claim_number, 0),
        task=job.task,
        queue=job.queue,
        envelope=job.envelope,
        crc=job.crc,
        policy=job.policy,
        counters=job.counters,
        details=job.details,
        stage=job.stage,
    )
    error = ErrorInfo("lost", message=_LOST, attempt=claim.attempt, at_ms=taken_ms, worker=job.process or "")
    change = settle(claim, Outcome(ending=Ending.LOST, error=error, cancel_requested=job.cancel_requested), 0.5)
    return replace(
        job,
        state=change.next,
        counters=change.counters,
        error=error,
        history=(*job.history, error)[-HISTORY_KEPT:],
        ended_ms=taken_ms if change.next.is_final else None,
        cancel_requested=job.cancel_requested and not change.next.is_final,
    )


# -- examining --------------------------------------------------------------------------------------------------------


def examine_backup(file: BinaryIO) -> Contents:
    """Read a backup from its first line to its last and say what it holds.

    Raises:
        BackupInvalid: names the lines that are damaged, the first ten of them.
    """
    file.seek(0)
    contents = Contents(_read_header(file.readline()))
    digest, number, end = hashlib.sha256(), 0, None
    broken: list[int] = []
    altered: list[int] = []
    file.seek(0)
    for number, line in enumerate(file, start=1):
        if end is not None:
            raise BackupInvalid(f"Line {number:,} stands behind the end of the backup; something was appended to it.")
        end = _read_end(line)
        if end is None:
            digest.update(line)
            if number > 1:
                _take_in(contents, line, number, broken, altered)
    if end is None:
        raise BackupInvalid(f"The backup is cut off in or after line {number:,}: its last line is missing. {_INSTEAD}")
    if broken:
        raise BackupInvalid(f"The backup is damaged in {_named(broken)}. {_INSTEAD}")
    if end != {"jobs": contents.jobs, "queues": contents.queues, "sha256": digest.hexdigest()}:
        where = f", as in {_named(altered)}" if altered else ", though every line can be read"
        raise BackupInvalid(f"The backup is not what was written{where}: its checksum differs. {_INSTEAD}")
    return contents


def _read_header(line: bytes) -> Header:
    try:
        header = msgspec.json.decode(line, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BackupInvalid("Line 1 is not the header of a backup; `penstock backup FILE` writes one.") from None
    if header.penstock_backup > FORMAT:
        raise BackupInvalid(
            f"The backup has format {header.penstock_backup}, written by penstock {header.version}; this version reads "
            f"up to {FORMAT}. Upgrade penstock here."
        )
    return header


def _read_end(line: bytes) -> Any:
    """Give what the last line says, None of any other line."""
    if not (line.startswith(b'{"end":') and line.endswith(b"\n")):
        return None
    try:
        return msgspec.json.decode(line)["end"]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _take_in(contents: Contents, line: bytes, number: int, broken: list[int], altered: list[int]) -> None:
    """Count what a line holds; note its number if it cannot be read, or if a job's arguments fail their checksum.

    The second alone is no damage of the file: a store may hold such a job.
    """
    try:
        read = msgspec.json.decode(line, type=dict[str, Any])
        if "queue" in read:
            msgspec.convert(read, Switches)
            contents.queues += 1
            return
        job = read_job(read["job"])
    except (msgspec.MsgspecError, ValueError, KeyError, AttributeError):
        broken.append(number)
        return
    contents.jobs += 1
    contents.running += job.state is State.RUNNING
    if job.crc is not None and zlib.crc32(job.envelope) != job.crc:
        altered.append(number)


def _named(lines: list[int]) -> str:
    if len(lines) == 1:
        return f"line {lines[0]:,}"
    more = f" and {len(lines) - _MOST_NAMED:,} more" if len(lines) > _MOST_NAMED else ""
    return f"lines {', '.join(f'{line:,}' for line in lines[:_MOST_NAMED])}{more}"
