"""What the store knows of the workers' records, and of workers and hosts that a person has taken out of service."""

import logging
import time

import msgspec
from msgspec import Struct

from penstock.engine import Engine
from penstock.model.record import Record

__all__ = ["QUARANTINE", "RECORDS", "Quarantine", "end_quarantine", "put_in_quarantine", "quarantined", "read_records"]

log = logging.getLogger("penstock")

#: The kinds of the shared values: records by process, quarantines by worker or host.
RECORDS, QUARANTINE = "records", "quarantine"
#: A record that is older says nothing any more, and is removed by whoever writes one.
RECORD_KEPT_MS = 3_600_000

_decode_record = msgspec.json.Decoder(Record).decode


class Quarantine(Struct, frozen=True):
    """Why a worker or a host shall claim no jobs, and since when, in ms since the epoch."""

    reason: str
    since_ms: int


_decode_quarantine = msgspec.json.Decoder(Quarantine).decode


def read_records(engine: Engine) -> dict[str, Record]:
    """Give the records by process; what cannot be read is left out."""
    found: dict[str, Record] = {}
    for process, data in engine.shared(RECORDS).items():
        try:
            found[process] = _decode_record(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            log.debug("the record of process %s cannot be read", process)
    return found


def quarantined(engine: Engine) -> dict[str, Quarantine]:
    """Give what is in quarantine, by the id of the worker or the name of the host."""
    found: dict[str, Quarantine] = {}
    for name, data in sorted(engine.shared(QUARANTINE).items()):
        try:
            found[name] = _decode_quarantine(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            found[name] = Quarantine("its entry in the store cannot be read", 0)
    return found


def put_in_quarantine(engine: Engine, name: str, reason: str) -> None:
    """Let a worker, or every worker on a host, claim no more jobs until this is ended."""
    data = msgspec.json.encode(Quarantine(reason, time.time_ns() // 1_000_000))
    while not engine.share(QUARANTINE, name, data, engine.shared(QUARANTINE).get(name)):
        continue


def end_quarantine(engine: Engine, name: str) -> bool:
    """Let a worker or host claim jobs again; says whether it was in quarantine."""
    while (known := engine.shared(QUARANTINE).get(name)) is not None:
        if engine.share(QUARANTINE, name, None, known):
            return True
    return False
