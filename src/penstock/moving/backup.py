"""A store as JSON lines: the file's form, and writing it.

The first line is the header, then come queues with a switch, jobs in rising order of id, and a last line with their
counts and the SHA-256 of all bytes before it, so that a file that was cut off or changed is known.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from penstock.engine import Engine, Filter
from penstock.model.errors import PenstockError
from penstock.model.job import Job
from penstock.model.states import State
from penstock.moving.pages import oldest_first

__all__ = ["FORMAT", "BackupInvalid", "Header", "Kept", "Switches", "back_up", "read_job"]

#: Rises when a file could no longer be read by what reads this one.
FORMAT = 1

#: The fields of a job that are bytes: text where they are UTF-8, else base64 under this ending.
_BYTES, _BASE64 = ("envelope", "result"), "_base64"


class BackupInvalid(PenstockError):
    """A backup cannot be read, or is not what was written; nothing was restored."""


class Header(Struct, frozen=True):
    """The first line: what was backed up, when, and how many jobs stood in which state as it began.

    Attributes:
        penstock_backup: the format's number.
        taken_ms: ms since the epoch.
    """

    penstock_backup: int
    version: str
    kind: str
    epoch: str
    taken_ms: int
    counts: Mapping[State, int] = {}


class Switches(Struct, frozen=True):
    """The line of a queue."""

    queue: str
    paused: bool
    max_jobs: int | None


class Kept(Struct):
    """What a backup holds."""

    jobs: int = 0
    running: int = 0
    queues: int = 0


def back_up(
    engine: Engine,
    write: Callable[[bytes], object],
    *,
    version: str,
    taken_ms: int,
    advance: Callable[[int], object] = lambda _: None,
) -> Kept:
    """Write a store's jobs and the switches of its queues, in memory that does not grow with their number.

    Work may go on meanwhile. Every job that is stored from the beginning until its page is read is in the backup once,
    as it was at that moment; not all are of the same moment, and jobs that were added meanwhile may be missing. Log
    text and what `once` and `step` wrote down stay out.

    Args:
        write: takes one line at a time.
        version: of this penstock.
        taken_ms: what time it is.
        advance: is told how many jobs were written, after each page.
    """
    digest, kept = hashlib.sha256(), Kept()

    def put(line: object) -> None:
        text = msgspec.json.encode(line) + b"\n"
        digest.update(text)
        write(text)

    put(_header(engine, version, taken_ms))
    for queue in engine.queues():
        if queue.paused or queue.max_jobs is not None:
            put(Switches(queue.name, queue.paused, queue.max_jobs))
            kept.queues += 1
    for page in oldest_first(engine, Filter()):
        for job in page:
            put({"job": _fields(job)})
            kept.running += job.state is State.RUNNING
        kept.jobs += len(page)
        advance(len(page))
    end = {"jobs": kept.jobs, "queues": kept.queues, "sha256": digest.hexdigest()}
    write(msgspec.json.encode({"end": end}) + b"\n")
    return kept


def _header(engine: Engine, version: str, taken_ms: int) -> Header:
    store, counts = engine.describe(), dict.fromkeys(State, 0)
    for row in engine.counts():
        for state, count in row.states.items():
            counts[state] += count
    held = {state: count for state, count in counts.items() if count}
    return Header(FORMAT, version, store.kind, store.epoch, taken_ms, held)


def _fields(job: Job) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(job, builtin_types=(bytes,))
    for name in _BYTES:
        value = fields.get(name)
        if value is not None:
            _write_bytes(fields, name, value)
    return fields


def _write_bytes(fields: dict[str, Any], name: str, value: bytes) -> None:
    try:
        fields[name] = value.decode()
    except UnicodeDecodeError:
        del fields[name]
        fields[name + _BASE64] = base64.b64encode(value).decode()


def read_job(fields: dict[str, Any]) -> Job:
    """Read a job from the fields of its line.

    Raises:
        ValueError, msgspec.MsgspecError: they are not those of a job.
    """
    for name in _BYTES:
        text, encoded = fields.get(name), fields.pop(name + _BASE64, None)
        if isinstance(text, str):
            fields[name] = text.encode()
        elif isinstance(encoded, str):
            fields[name] = base64.b64decode(encoded, validate=True)
    return msgspec.convert(fields, Job, builtin_types=(bytes,))
