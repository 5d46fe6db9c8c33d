"""What a running job has done already: its own steps, and side effects that must not happen twice."""

import zlib
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, TypeVar

from penstock.engine import Begun, Engine
from penstock.model.codec import encode_value
from penstock.model.durations import Duration, milliseconds
from penstock.model.errors import Bury, PayloadInvalid, Snooze, TaskInvalid
from penstock.model.job import Claim, JobId
from penstock.model.states import State
from penstock.signature import enc_hook, result_decoder

__all__ = ["DEFAULT_KEEP", "ONCE", "Ledger", "OutcomeInvalid", "Unknown"]

R = TypeVar("R")

#: The scope of side effects that all jobs share.
ONCE = "once"
#: How long a side effect is remembered.
DEFAULT_KEEP = "30d"
#: How long a job waits for another one that is about to do the same.
BUSY_S = 2.0

#: What to do where a side effect was begun and nobody knows whether it happened: bury the job for a person, do it
#: again, leave it out, or ask a function, which says whether it happened.
Unknown = Literal["bury", "repeat", "skip"] | Callable[[], bool]


class OutcomeInvalid(PayloadInvalid):
    """A step or side effect happened and gave what cannot be kept; it buries the job, for the work is done."""


class Home(Protocol):
    """What is asked of the application."""

    @property
    def engine(self) -> Engine: ...
    @property
    def max_payload(self) -> int: ...


class Ledger:
    """What one claim may read and write of what was done."""

    def __init__(self, home: Home, claim: Claim) -> None:
        self._home, self._claim = home, claim

    # -- steps --------------------------------------------------------------------------------------------------------

    def seek_step(self, name: str, function: Callable[..., Any]) -> tuple[bool, Any]:
        """Say whether a step was done by an earlier attempt, and what it gave; else it is begun."""
        begun = self._begin(self._scope, _checked("step", name), None)
        return begun.value is not None, _read(function, begun.value)

    def note_step(self, name: str, function: Callable[..., Any], value: object) -> Any:
        """Write down what a step gave, and give it as a later attempt will see it."""
        return self._note(self._scope, name, f"step {name!r}", function, value)

    @property
    def _scope(self) -> str:
        """The steps of a job are those of its arguments: one that was edited begins anew."""
        envelope = self._claim.envelope
        return f"step:{self._claim.id}:{zlib.crc32(envelope):08x}"

    # -- side effects -------------------------------------------------------------------------------------------------

    def seek(self, key: str, function: Callable[..., Any], unknown: Unknown, keep: Duration) -> tuple[bool, Any]:
        """Say whether a side effect is not to be done any more, and what it gave; else it is begun.

        Raises:
            Bury: nobody knows whether it happened, and a person is to say.
            Snooze: another job is about to do it.
        """
        begun = self._begin(ONCE, _checked("key", key), milliseconds(keep))
        if begun.first:
            return False, None
        if begun.value is not None:
            return True, _read(function, begun.value)
        if self._is_under_way(begun.by):
            raise Snooze(BUSY_S, f"job {begun.by} is about to do {key!r}")
        return self._resolve(key, unknown, begun.by)

    def note(self, key: str, function: Callable[..., Any], value: object) -> Any:
        """Write down what a side effect gave, and give it as others will see it."""
        return self._note(ONCE, key, f"the side effect {key!r}", function, value)

    def take_back(self, key: str) -> None:
        """Write down that what was begun did not happen."""
        self._home.engine.record(self._claim.id, self._claim.fence, ONCE, key, None)

    def _is_under_way(self, by: JobId | None) -> bool:
        """Say whether another job that runs now has begun it."""
        if by is None or by == self._claim.id:
            return False
        job = self._home.engine.get([by])[0]
        return job is not None and job.state is State.RUNNING

    def _resolve(self, key: str, unknown: Unknown, by: JobId | None) -> tuple[bool, Any]:
        if callable(unknown):
            happened = unknown()
            if happened:
                self._home.engine.record(self._claim.id, self._claim.fence, ONCE, key, b"null")
            return happened, None
        match unknown:
            case "repeat":
                return False, None
            case "skip":
                return True, None
            case "bury":
                raise Bury(
                    f"nobody knows whether {key!r} happened: job {by} had begun it and did not say. Look, then say so "
                    f"with `penstock once {key!r} --done` or `--not-done`, and kick this job"
                )
        raise TaskInvalid(f"unknown={unknown!r} is no policy; give 'bury', 'repeat', 'skip', or a function that looks.")

    # -- both ---------------------------------------------------------------------------------------------------------

    def _begin(self, scope: str, key: str, keep_ms: int | None) -> Begun:
        return self._home.engine.begin(self._claim.id, self._claim.fence, scope, key, keep_ms)

    def _note(self, scope: str, key: str, what: str, function: Callable[..., Any], value: object) -> Any:
        try:
            data = encode_value(value, f"what {what} gave", limit=self._home.max_payload, enc_hook=enc_hook)
        except PayloadInvalid as error:
            raise OutcomeInvalid(f"{error} It happened, so the job is not run again.", error.path) from error
        self._home.engine.record(self._claim.id, self._claim.fence, scope, key, data)
        return _read(function, data)


def _read(function: Callable[..., Any], data: bytes | None) -> Any:
    """Read what a function gave; who only knows that it happened says null, whatever its annotation."""
    return None if data in (None, b"null") else result_decoder(function)(data)


def _checked(what: str, text: Any) -> str:
    if isinstance(text, str) and text and len(text) <= _LONGEST and text.isprintable():
        return text
    raise TaskInvalid(f"{text!r} is no {what}; give a text of 1 to {_LONGEST} printable characters.")


_LONGEST = 500


# -- doing ------------------------------------------------------------------------------------------------------------


def do_step(ledger: Ledger, name: str, function: Callable[..., R], args: Any, kwargs: Any) -> R:
    is_done, value = ledger.seek_step(name, function)
    if not is_done:
        value = ledger.note_step(name, function, function(*args, **kwargs))
    return value  # type: ignore[no-any-return]  # as `function` gave it


async def ado_step(ledger: Ledger, name: str, function: Callable[..., Awaitable[R]], args: Any, kwargs: Any) -> R:
    from asyncio import to_thread

    is_done, value = await to_thread(ledger.seek_step, name, function)
    if not is_done:
        value = await to_thread(ledger.note_step, name, function, await function(*args, **kwargs))
    return value  # type: ignore[no-any-return]  # as `function` gave it


def do_once(
    ledger: Ledger, key: str, function: Callable[..., R], args: Any, kwargs: Any, unknown: Unknown, keep: Duration
) -> R | None:
    is_over, value = ledger.seek(key, function, unknown, keep)
    if is_over:
        return value  # type: ignore[no-any-return]  # as `function` gave it, or None where it was left out
    try:
        gave = function(*args, **kwargs)
    except TimeoutError:
        raise  # it may have happened all the same
    except Exception:
        ledger.take_back(key)
        raise
    return ledger.note(key, function, gave)  # type: ignore[no-any-return]


async def ado_once(
    ledger: Ledger,
    key: str,
    function: Callable[..., Awaitable[R]],
    args: Any,
    kwargs: Any,
    unknown: Unknown,
    keep: Duration,
) -> R | None:
    from asyncio import to_thread

    is_over, value = await to_thread(ledger.seek, key, function, unknown, keep)
    if is_over:
        return value  # type: ignore[no-any-return]  # as `function` gave it, or None where it was left out
    try:
        gave = await function(*args, **kwargs)
    except TimeoutError:
        raise  # it may have happened all the same
    except Exception:
        await to_thread(ledger.take_back, key)
        raise
    return await to_thread(ledger.note, key, function, gave)
