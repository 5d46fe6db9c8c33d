"""The stored forms of values. Most jobs have no details and few distinct counters, so both are cheap to read."""

import msgspec

from penstock.model.job import (
    HISTORY_KEPT,
    NO_COUNTERS,
    NO_DETAILS,
    UNREADABLE_COUNTERS,
    UNREADABLE_DETAILS,
    Counters,
    Details,
    ErrorInfo,
    Progress,
)
from penstock.model.retry import Policy

_CACHED_COUNTERS = 4096

policy_in = msgspec.json.Decoder(Policy).decode
_decode_details = msgspec.json.Decoder(Details).decode
_decode_counters = msgspec.json.Decoder(Counters).decode
_decode_history = msgspec.json.Decoder(tuple[ErrorInfo, ...]).decode
_decode_progress = msgspec.json.Decoder(Progress).decode
_counters_out: dict[Counters, bytes | None] = {NO_COUNTERS: None}
_counters_in: dict[bytes | None, Counters] = {None: NO_COUNTERS}


def details_out(details: Details) -> bytes | None:
    return None if details is NO_DETAILS or details == NO_DETAILS else msgspec.json.encode(details)


def details_in(stored: bytes | None) -> Details:
    """Read details; damage costs this job alone, and not the exchange that meets it."""
    if stored is None:
        return NO_DETAILS
    try:
        return _decode_details(stored)
    except ValueError:
        return UNREADABLE_DETAILS


def counters_out(counters: Counters) -> bytes | None:
    if counters in _counters_out:
        return _counters_out[counters]
    stored = msgspec.json.encode(counters)
    if len(_counters_out) < _CACHED_COUNTERS:
        _counters_out[counters] = stored
    return stored


def counters_in(stored: bytes | None) -> Counters:
    """Read counters; damage costs this job alone, and not the exchange that meets it."""
    counters = _counters_in.get(stored)
    if counters is None and stored is not None:
        try:
            counters = _decode_counters(stored)
        except ValueError:
            return UNREADABLE_COUNTERS
        if len(_counters_in) < _CACHED_COUNTERS:
            _counters_in[stored] = counters
    return counters or NO_COUNTERS


def history_in(stored: bytes | None) -> tuple[ErrorInfo, ...]:
    return () if stored is None else _decode_history(stored)


def history_with(history: tuple[ErrorInfo, ...], error: ErrorInfo, now_ms: int) -> tuple[ErrorInfo, ...]:
    """Append an error, stamped with the store's time, and keep the last 20."""
    return (*history, msgspec.structs.replace(error, at_ms=now_ms))[-HISTORY_KEPT:]


def history_out(stored: bytes | None, error: ErrorInfo | None, now_ms: int) -> bytes | None:
    """Give a stored history with an error at its end; as it was if there is none."""
    return stored if error is None else msgspec.json.encode(history_with(history_in(stored), error, now_ms))


def progress_in(stored: bytes | None) -> Progress | None:
    return None if stored is None else _decode_progress(stored)
